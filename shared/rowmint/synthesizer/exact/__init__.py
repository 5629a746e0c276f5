"""Arithmetic that every family shares: kernels, layers and tables whose results are the same on every processor."""
