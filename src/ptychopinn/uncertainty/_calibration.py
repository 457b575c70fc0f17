"""Coefficients of the errors, written by ``python benchmarks/uncertainty.py calibrate``; do not edit."""

from __future__ import annotations

COEFFICIENTS = {
    "few": {
        "amplitude": (-0.019, 0.036, 0.243, 0.337, 0.410, 0.494, 0.245, 0.138, 0.100, 0.046, 0.692),
        "phase": (2.146, 0.091, 0.245, 0.526, 0.515, 0.408, 0.114, 0.105, 0.194, -0.190, 0.012),
    },
    "many": {
        "amplitude": (0.430, 0.011, 0.534, 0.047, 0.296, 0.466, 0.277, 0.129, 0.086, 0.266, 0.199),
        "phase": (2.146, 0.156, 0.350, 0.105, 0.371, 0.365, 0.159, 0.181, 0.256, 0.224, -0.116),
    },
}
