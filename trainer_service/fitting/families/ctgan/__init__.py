"""Conditional tabular GAN (arXiv:1907.00503, section 4.3)."""
