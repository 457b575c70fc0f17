"""Numbers of the networks and of the loss, the same in every backend: with others, weights would mean something else.

Those of the optimizer are in `ptychopinn.training.optimizer`.
"""

from __future__ import annotations

GRID = 16  # width of the grid on which the fast network computes
WIDTH = 64  # channels of the fast network, times the width scale
HEAD_STD = 3e-3  # of the first weights that correct a patch: training begins at nearly 1, and soon leaves it
AMPLITUDE_LIMIT = 2.5  # of the bounded activation
MODULUS_FLOOR = 1e-3  # of the mean intensity of a detector pixel: keeps the modulus ratio finite
PROBE_REGULARISATION = 0.1  # of the brightest probe pixel: rPIE's alpha

PHASE_ITERATIONS = 15  # in which the patches of a group agree on their phases
COVERAGE_EPSILON = 1e-2  # added to the coverage: where little was seen the canvas falls back to 1 + 0j
