"""The sampler: loads published model versions and streams synthetic rows. It holds no state and no real data."""
