"""Chooses numba's threading layer, once, before any parallel kernel runs. Import it where kernels are defined.

The `omp` layer: Open3D loads an old TBB, at which numba's default layer warns.
"""

import numba

numba.config.THREADING_LAYER = "omp"
