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

_POSITION_PASSES = 3  # that fit the positions of the judging patterns
_OBJECT_FIXED = StepSchedule(
    alpha=1.0, momentum=0.0, object_step=0.0, last_object_step=0.0, probe_step=0.0, position_step=1.0, settles=False
)


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

        Positions and flux of the judging patterns are fitted to that object, if those of the others are free.

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
        judges, positions = self.judges, model.positions
        with self.patterns.library.session() as library:
            canvas = self._place(positions, library)
            engine = PassEngine(self.patterns, self.used, model, canvas, options, library)
            self._run(engine, self.passes)
            canvas, probe = engine.result()
            model = replace(model, probe=probe, background=engine.background)
            if options.update_positions:
                fitting = replace(options, schedule=_OBJECT_FIXED, update_probe=False, update_background=None)
                engine = PassEngine(self.patterns, judges, model, canvas, fitting, library)
                self._run(engine, _POSITION_PASSES)
                positions = positions.copy()
                positions[judges] = engine.positions
                model = replace(model, positions=positions)
            if options.update_flux:
                flux = np.ones(len(positions), np.float32)
                flux[judges] = self._residual_of(replace(model, flux=None)).light(canvas)
                model = replace(model, flux=flux)
            return self._residual_of(model).shares(canvas)

    def _place(self, positions: FloatArray, library: ArrayLibrary) -> Canvas:
        """A copy of the start in a frame that has the windows of all patterns, where it fits."""
        size, every = self.patterns.data.N, np.concatenate([self.used, self.judges])
        frame = Frame.around(positions[every], size, MAX_MOVE_PX)
        place = where_object_fits(frame, size, library) or library
        return Canvas(place.from_host(self.start.library.to_host(self.start.moved_to(frame).array)), frame, place)

    def _run(self, engine: PassEngine, passes: int) -> None:
        for done in range(passes):
            if engine.run(done, passes, self.monitor) is None:
                raise Cancelled("A trial of passes was cancelled.")

    def _residual_of(self, model: ScanModel) -> ForwardResidual:
        return ForwardResidual(
            model, self.patterns, indices=self.judges, max_patterns=len(self.judges), likelihood=self.judged_by
        )
