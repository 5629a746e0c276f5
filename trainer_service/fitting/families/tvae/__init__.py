"""Tabular variational autoencoder (arXiv:1907.00503, section 4.4)."""
