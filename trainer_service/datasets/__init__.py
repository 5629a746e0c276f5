"""Datasets: bytes received in segments, and the tables they are found to be."""
