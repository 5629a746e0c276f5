"""Families that run a network on Gaussian noise: CTGAN's generator and TVAE's decoder."""
