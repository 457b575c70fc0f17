"""Try passes with some patterns of a scan, and judge them by patterns that they do not use.

Neighbouring windows overlap, so an object that is made of some patterns predicts the others, if patterns and model
agree. If they do not agree, or if too much is free, the passes still fit the patterns that they use, but the prediction
fails.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ptychopinn.arrays import ArrayLibrary
from ptychopinn.config.infer import Likelihood
from ptychopinn.data.patterns import Patterns
from ptychopinn.errors import Cancelled
from ptychopinn.geometry import Canvas, Frame
from ptychopinn.metrics.quality import ForwardResidual
from ptychopinn.monitor import NULL_MONITOR, Monitor
from ptychopinn.scan_model import ScanModel
from ptychopinn.solvers.engine import PassEngine
from ptychopinn.solvers.options import PassOptions, StepSchedule
from ptychopinn.solvers.positions import MAX_MOVE_PX
from ptychopinn.tiles import where_object_fits
from ptychopinn.typing import FloatArray, IntArray

_FITTING_PASSES = 3  # that fit positions and weights of the judging patterns
_OBJECT_FIXED = StepSchedule(
    alpha=1.0, momentum=0.0, object_step=0.0, last_object_step=0.0, probe_step=0.0, position_step=1.0, settles=False
)


def make_passes(engine: PassEngine, passes: int, monitor: Monitor) -> None:
    """Make passes; raises Cancelled if the monitor is cancelled."""
    for done in range(passes):
        if engine.run(done, passes, monitor) is None:
            raise Cancelled("A trial of passes was cancelled.")


def fit_to_object(
    patterns: Patterns,
    judges: IntArray,
    model: ScanModel,
    canvas: Canvas,
    options: PassOptions,
    monitor: Monitor,
) -> ScanModel:
    """The model with positions and weights of some patterns fitted to an object and a probe that stay.

    Raises
    ------
    Cancelled
        If the monitor is cancelled.
    """
    count = 0 if model.variation is None else model.variation.weights.shape[1]
    fitting = replace(
        options,
        schedule=_OBJECT_FIXED,
        update_probe=False,
        update_flux=False,
        update_background=None,
        update_variation=count if options.update_variation > 0 else 0,
    )
    engine = PassEngine(patterns, judges, model, canvas, fitting)
    make_passes(engine, _FITTING_PASSES, monitor)
    return engine.model


@dataclass(frozen=True, eq=False)
class PassTrial:
    """Patterns that passes use, patterns that judge the passes, and the object that they start from."""

    patterns: Patterns
    used: IntArray  # (k,) int64, indices
    judges: IntArray  # (j,) int64, indices
    start: Canvas  # of any frame and library; it is not changed, and is 1 outside its frame
    passes: int
    judged_by: Likelihood = Likelihood.AMPLITUDE  # whose residual judges
    monitor: Monitor = NULL_MONITOR

    def shares(self, model: ScanModel, options: PassOptions) -> FloatArray:
        """Make passes, and compare the judging patterns with the object that they give.

        Positions, flux and weights of a varying probe are fitted for the judging patterns too, to that object, if they
        are free.

        Returns
        -------
        (j,) float64: what each judging pattern contributes to the squared forward residual.

        Raises
        ------
        Cancelled
            If the monitor is cancelled.
        DataError
            If the judging patterns have no photon.
        """
        judges = self.judges
        with self.patterns.session() as patterns:
            canvas = self._place(model.positions, patterns.library)
            engine = PassEngine(patterns, self.used, model, canvas, options)
            make_passes(engine, self.passes, self.monitor)
            canvas, model = engine.result()
            if options.update_positions or options.update_variation > 0:
                model = fit_to_object(patterns, judges, model, canvas, options, self.monitor)
            if options.update_flux and model.flux is not None:
                flux = model.flux.copy()
                flux[judges] = self._residual_of(replace(model, flux=None)).light(canvas)
                model = replace(model, flux=flux)
            return self._residual_of(model).shares(canvas)

    def _place(self, positions: FloatArray, library: ArrayLibrary) -> Canvas:
        """A copy of the start in a frame that has the windows of all patterns, where it fits."""
        size, every = self.patterns.data.N, np.concatenate([self.used, self.judges])
        frame = Frame.around(positions[every], size, MAX_MOVE_PX)
        place = where_object_fits(frame, size, library) or library
        return Canvas(place.from_host(self.start.library.to_host(self.start.moved_to(frame).array)), frame, place)

    def _residual_of(self, model: ScanModel) -> ForwardResidual:
        return ForwardResidual(
            model, self.patterns, indices=self.judges, max_patterns=len(self.judges), likelihood=self.judged_by
        )
