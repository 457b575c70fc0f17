"""Backends whose memory runs out while they predict, as TensorFlow says it: one for large batches, one for any."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ptychopinn.hookspecs import hookimpl
from ptychopinn.reconstructor import ReconstructorSpec
from ptychopinn.training.base import Predict
from ptychopinn.typing import ComplexArray, FloatArray
from ptychopinn_tf import plugin

MOST = {"cramped": 5, "exhausted": 0}  # patterns that fit


@hookimpl
def ptychopinn_reconstructors() -> list[ReconstructorSpec]:
    """Both."""
    (spec,) = plugin.ptychopinn_reconstructors()
    return [replace(spec, name=name, import_string=f"cramped_tf:{name}") for name in MOST]


def __getattr__(name: str) -> Any:
    """The class of a backend, made when it is asked for: listing backends imports no TensorFlow."""
    if name not in MOST:
        raise AttributeError(name)
    from ptychopinn_tf._tensorflow import tf
    from ptychopinn_tf.reconstructor import TfReconstructor

    class Cramped(TfReconstructor):
        backend = name

        def _predictor(self, *rest: Any) -> tuple[ComplexArray, Predict]:
            probe, predict = super()._predictor(*rest)

            def limited(counts: FloatArray) -> ComplexArray:
                if len(counts) > MOST[name]:
                    raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor with shape[4096]")
                return predict(counts)

            return probe, limited

    return Cramped
