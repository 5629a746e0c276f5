"""The independent family: each column by its own marginal."""
