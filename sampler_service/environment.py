"""What the sampler's libraries read from the environment when they are loaded.

The scheduler's threads share the cores; BLAS would have as many again beside each of them.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
