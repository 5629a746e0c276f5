"""What each kind of job does: one runner a kind."""
