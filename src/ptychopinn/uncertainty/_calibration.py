"""Coefficients of the errors, written by ``python benchmarks/uncertainty.py calibrate``; do not edit."""

from __future__ import annotations

COEFFICIENTS = {
    "few": {
        "amplitude": (0.102, 0.037, 0.245, 0.340, 0.410, 0.477, 0.241, 0.160, 0.110, 0.687),
        "phase": (1.767, 0.087, 0.239, 0.512, 0.518, 0.515, 0.114, -0.013, 0.176, 0.030),
    },
    "many": {
        "amplitude": (1.072, 0.081, 0.470, 0.079, 0.297, 0.434, 0.299, 0.181, 0.142, -0.051),
        "phase": (2.620, 0.201, 0.292, 0.094, 0.377, 0.319, 0.191, 0.218, 0.289, -0.364),
    },
}
