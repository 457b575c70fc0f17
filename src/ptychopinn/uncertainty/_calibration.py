"""Coefficients of the errors, written by ``python benchmarks/uncertainty.py calibrate``; do not edit."""

from __future__ import annotations

COEFFICIENTS = {
    "few": {
        "amplitude": (0.102, 0.037, 0.245, 0.340, 0.410, 0.477, 0.241, 0.160, 0.110, 0.687),
        "phase": (1.767, 0.087, 0.239, 0.512, 0.518, 0.515, 0.114, -0.013, 0.176, 0.030),
    },
    "many": {
        "amplitude": (1.158, 0.024, 0.556, 0.062, 0.286, 0.454, 0.271, 0.201, 0.145, 0.188),
        "phase": (2.717, 0.156, 0.370, 0.113, 0.364, 0.349, 0.157, 0.243, 0.302, -0.135),
    },
}
