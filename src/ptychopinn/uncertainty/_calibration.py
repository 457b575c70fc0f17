"""Coefficients of the errors, written by ``python benchmarks/uncertainty.py calibrate``; do not edit."""

from __future__ import annotations

COEFFICIENTS = {
    "few": {
        "amplitude": (0.025, -0.001, 0.215, 0.322, 0.565, 0.302, 0.237, 0.426, 0, 0, 0.571),
        "phase": (1.111, 0.026, 0.316, 0.615, 0.557, 0.22, 0.254, 0.37, 0, 0, 0.22),
    },
    "many": {
        "amplitude": (0.177, 0.12, 0.311, 0.183, 0.456, 0.488, 0.391, 0.199, 0, 0, 0.232),
        "phase": (1.123, 0.219, 0.283, 0.169, 0.443, 0.545, 0.398, 0.144, 0, 0, -0.484),
    },
}
