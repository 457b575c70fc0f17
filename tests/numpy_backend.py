"""The NumPy backend of `examples/numpy_backend`, with options that make it fail where a test wants it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ptychopinn_numpy import options, reconstructor, training

from ptychopinn.hookspecs import hookimpl
from ptychopinn.reconstructor import Capability, ReconstructorSpec
from ptychopinn.training import ScanBatches, TrainingPlan
from ptychopinn.training.base import Predict
from ptychopinn.typing import ComplexArray, FloatArray


class NumpyOptions(options.NumpyOptions):
    """See the module."""

    patterns_that_fit: int = 10**9
    loss_breaks: bool = False


class BreakingSearch(training.StepSearch):
    """Its loss is never a number."""

    def _loss(
        self, model: training.Model, scan: ScanBatches, batch: Mapping[str, Any]
    ) -> tuple[float, dict[str, float], ComplexArray]:
        return math.nan, *super()._loss(model, scan, batch)[1:]


class NumpyReconstructor(reconstructor.NumpyReconstructor):
    """See the module."""

    distribution = "ptychopinn"  # the example itself need not be installed
    options_model = NumpyOptions

    def _make_fit(self, model: training.Model, plan: TrainingPlan) -> training.StepSearch:
        super()._make_fit(model, plan)
        return (BreakingSearch if self._options.loss_breaks else training.StepSearch)(model, plan)

    def _predictor(
        self, model: training.Model, scan_probe: ComplexArray | None, mean_counts: float, good: FloatArray
    ) -> tuple[ComplexArray, Predict]:
        probe, predict = super()._predictor(model, scan_probe, mean_counts, good)

        def limited(counts: FloatArray) -> ComplexArray:
            if len(counts) > self._options.patterns_that_fit:
                raise MemoryError
            return predict(counts)

        return probe, limited


@hookimpl
def ptychopinn_reconstructors() -> list[ReconstructorSpec]:
    """What this module registers when it is named as an entry point."""
    return [
        ReconstructorSpec(
            name="numpy",
            summary="Plain NumPy, for tests",
            import_string="numpy_backend:NumpyReconstructor",
            options=NumpyOptions,
            capabilities=frozenset({Capability.CPU, Capability.PINN, Capability.RESUME}),
        )
    ]
