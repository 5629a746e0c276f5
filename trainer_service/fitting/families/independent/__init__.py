"""Each column by its own marginal: the baseline of every report."""
