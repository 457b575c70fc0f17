"""Tiny trainings in TensorFlow, for tests and for the processes that they start; tensors and arrays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from backend_suite.fits import Fits
from backend_suite.ops import Ops

from ptychopinn.config import ModelConfig
from ptychopinn.config.execution import Precision
from ptychopinn.training import TrainingPlan
from ptychopinn.training.objective import Objective
from ptychopinn.typing import AnyArray
from ptychopinn_tf import forward, model, network, operations
from ptychopinn_tf._tensorflow import tf
from ptychopinn_tf.options import TfOptions
from ptychopinn_tf.reconstructor import TfReconstructor
from ptychopinn_tf.training import make_objective

FITS = Fits(TfReconstructor, TfOptions, module=__name__, folder=Path(__file__).parent)
new, fit_to = FITS.new, FITS.fit_to


class TfOps(Ops):
    """TensorFlow's tensors."""

    forward, model, network, operations = forward, model, network, operations

    def tensor(self, array: AnyArray) -> Any:
        """A constant."""
        return tf.constant(array)

    def array(self, tensor: Any) -> AnyArray:
        """Its value."""
        return np.asarray(tensor)

    def gradients(self, function: Callable[..., Any], *arrays: AnyArray) -> list[AnyArray]:
        """By a tape."""
        given = [tf.constant(array) for array in arrays]
        with tf.GradientTape() as tape:
            tape.watch(given)
            value = tf.reduce_sum(tf.math.real(function(*given)))
        found = tape.gradient(value, given, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return [np.asarray(gradient) for gradient in found]

    def build(self, config: ModelConfig, probe: AnyArray, offset_px: AnyArray, **settings: Any) -> Any:
        """On the CPU."""
        light = model.Illumination(probe, offset_px, settings.pop("log_intensity", 0.0))
        return model.Model(config, light, settings.pop("precision", Precision.FLOAT32), **settings)

    def objective(self, plan: TrainingPlan) -> Objective:
        """On the CPU."""
        return make_objective(plan, plan.training)
