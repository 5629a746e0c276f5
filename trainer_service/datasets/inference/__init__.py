"""Inference of the types of columns, and of how their cells are written."""
