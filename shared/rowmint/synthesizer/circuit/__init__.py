"""The circuit family: a tree of columns with hidden states, drawn, conditioned and scored in whole numbers."""
