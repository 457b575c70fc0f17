"""The conformance kit, for TensorFlow. Requirements: specs/11-conformance.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from ptychopinn.arrays import NUMPY
from ptychopinn.geometry import split_positions
from ptychopinn.testing import ForwardConformance, ReconstructorConformance
from ptychopinn.typing import ComplexArray, FloatArray
from ptychopinn_tf.forward import GroupForward
from ptychopinn_tf.plugin import ptychopinn_reconstructors

(SPEC,) = ptychopinn_reconstructors()


class TestTf(ReconstructorConformance):
    """The fast architecture."""

    spec = SPEC
    model: ClassVar[Mapping[str, Any]] = {"n_filters_scale": 0.1, "iterations": 1, "group_size": 4}
    train: ClassVar[Mapping[str, Any]] = {"n_groups": 8, "batch_size": 2, "learning_rate": 0.02}
    learn: ClassVar[Mapping[str, Any]] = {"nepochs": 8, "n_groups": 7, "batch_size": 1}
    options: ClassVar[Mapping[str, Any]] = {"accelerator": "cpu"}


class TestTfForward(ForwardConformance):
    """The physics of the loss, all patterns in one group."""

    def expected_counts(self, obj: ComplexArray, probe: ComplexArray, positions: FloatArray) -> FloatArray:
        """The object around the first pattern on the canvas, the probe moved by what is left of a pixel."""
        size = probe.shape[-1]
        corners, fractions = split_positions(positions, size)
        reach = int(np.abs(corners - corners[0]).max())
        group = GroupForward(size, size, reach)
        canvas = NUMPY.cut_windows(obj, corners[:1] - reach, group.canvas_size) - 1
        offsets, moved = corners - corners[:1], fractions.astype(np.float32)
        given = (tf.constant(array) for array in (canvas, probe, offsets[None], moved[None]))
        counts = group(*given)
        return np.fft.fftshift(counts[0].numpy(), axes=(1, 2))
