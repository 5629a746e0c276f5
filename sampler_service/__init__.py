"""The sampler: loads published model versions and streams synthetic rows. It holds no state and no real data."""

import sampler_service.environment  # noqa: F401  # before NumPy is loaded
