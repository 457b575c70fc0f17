"""The conformance kit of ptychopinn, for the NumPy backend."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from ptychopinn_numpy.plugin import ptychopinn_reconstructors

from ptychopinn.testing import ReconstructorConformance

(SPEC,) = ptychopinn_reconstructors()
REFUSED = frozenset(
    {
        *("n_filters_scale", "amp_activation", "architecture", "pad_object", "probe_big", "object_big"),
        *("gaussian_smoothing_sigma", "realspace_weight", "probe_trainable", "intensity_scale_trainable"),
        *("simulate_objects", "simulate_probes", "learning_rate", "scheduler", "accumulate_grad_batches"),
        *("gradient_clip", "gradient_clip_algorithm"),
    }
)


class TestNumpy(ReconstructorConformance):
    """All of it; the network learns within a few batches."""

    spec = SPEC
    train: ClassVar[Mapping[str, Any]] = {"batch_size": 2}
    refuses = REFUSED
