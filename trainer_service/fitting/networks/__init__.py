"""What the families with networks share: parameters in one vector, activations, keyed draws, the layout of a row."""
