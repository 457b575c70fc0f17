"""Constants of the networks and of the loss. All backends must share them, or weights would change their meaning.

`ptychopinn.training.optimizer` has the constants of the optimizer.
"""

from __future__ import annotations

GRID = 16  # width of the grid on which the fast network computes
WIDTH = 64  # channels of the fast network, times the width scale
HEAD_STD = 3e-3  # of the initial weights of the correction: a first patch is nearly 1
AMPLITUDE_LIMIT = 2.5  # of the bounded activation
MODULUS_FLOOR = 1e-3  # of the mean intensity of a detector pixel: keeps the modulus ratio finite
PROBE_REGULARISATION = 0.1  # of the brightest probe pixel: rPIE's alpha

PHASE_ITERATIONS = 15  # to align the phases of the patches of a group
COVERAGE_EPSILON = 1e-2  # added to the coverage, so that poorly covered pixels tend to 1 + 0j
