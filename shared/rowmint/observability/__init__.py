"""What the services tell of themselves: metrics, traces, and a line a call."""
