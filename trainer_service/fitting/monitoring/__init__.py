"""What a running fit reports: events, losses, probes of quality."""
