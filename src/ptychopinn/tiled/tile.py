"""A tile of a scan at work: its patterns, its part of the model, and its part of each round."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from ptychopinn.arrays import Array, ArrayLibrary, slices_of
from ptychopinn.config.automatic import Freedom
from ptychopinn.config.infer import Likelihood
from ptychopinn.data.patterns import Patterns
from ptychopinn.errors import Cancelled
from ptychopinn.geometry import Canvas, Frame
from ptychopinn.metrics.quality import ForwardResidual
from ptychopinn.monitor import Monitor
from ptychopinn.scan_model import ScanModel
from ptychopinn.solvers.slow_phase import phase_gradients
from ptychopinn.tiled.store import FIGURES, GRADIENTS, TilePatterns, TileStore, save_arrays
from ptychopinn.typing import FloatArray, IntArray

_READ = 32  # patterns read at a time


@dataclass(frozen=True, eq=False)
class OpenTile:
    """A tile with its patterns and the model of the scan."""

    store: TileStore
    number: int
    library: ArrayLibrary
    fitted: str | None = None  # the round whose positions and flux are those of the model

    @cached_property
    def patterns(self) -> Patterns:
        """Of core and halo."""
        return Patterns(self.store.scan(self.known.members), self.library)

    @cached_property
    def known(self) -> TilePatterns:
        """Members, places and roles of the patterns."""
        return self.store.tile(self.number)

    @cached_property
    def model(self) -> ScanModel:
        """The model of the scan for these patterns."""
        arrays, to_device = self.store.model(), self.library.from_host
        background = arrays.get("background")
        positions, flux = (self.store.read_fitted(self.fitted, one) for one in (Freedom.POSITIONS, Freedom.FLUX))
        return ScanModel(
            to_device(arrays["probe"]),
            self.known.positions if positions is None else positions[self.known.members],
            None if flux is None else flux[self.known.members],
            background=None if background is None else to_device(background),
        )

    @property
    def core(self) -> Frame:
        """Its part of the object."""
        return self.store.cores[self.number]

    @property
    def frame(self) -> Frame:
        """Core and halo."""
        return self.store.frames[self.number]

    def read(self, round_name: str, name: str) -> Array:
        """An array of a round over core and halo, of the library."""
        return self.library.from_host(self.store.read(round_name, name, self.frame))

    def put(self, round_name: str, name: str, array: Array) -> None:
        """Write the core of an array over core and halo."""
        here, _ = self.frame.overlap(self.core)
        self.store.put(round_name, self.number, name, self.library.to_host(array)[here])

    def judge(self, obj: Array) -> list[float]:
        """What each judging pattern contributes to the square of the forward residual, times all their counts."""
        if len(self.known.judges) == 0:
            return []
        canvas, model = Canvas(obj, self.frame, self.library), self.model
        judges = self.known.judges
        held_out = judges[self.known.ranks[judges] < 0]
        if model.flux is not None and len(held_out):  # no pass fits theirs
            flux = model.flux.copy()
            flux[held_out] = self._residual(replace(model, flux=None), held_out).light(canvas)
            model = replace(model, flux=flux)
        found: list[float] = (self._residual(model, judges).shares(canvas) * self.counts).tolist()
        return found

    def light(self, obj: Array) -> list[float]:
        """By how much each judging pattern has more counts than an object explains."""
        if len(self.known.judges) == 0:
            return []
        canvas = Canvas(obj, self.frame, self.library)
        found: list[float] = self._residual(self.model, self.known.judges).light(canvas).tolist()
        return found

    def measure_gradients(self, obj: Array, round_name: str, monitor: Monitor) -> None:
        """Write the gradients of the slow phase at the patterns of the core. Raises Cancelled."""
        slow, canvas = self.known.slow, Canvas(obj, self.frame, self.library)
        found: tuple[FloatArray, FloatArray] | None = np.zeros((0, 2, 2)), np.zeros((0, 2))
        if len(slow):
            found = phase_gradients(self.patterns, slow, self.model, canvas, monitor)
        if found is None:
            raise Cancelled("The gradients were cancelled.")
        path = self.store.job_folder(round_name, self.number) / GRADIENTS
        save_arrays(path, numbers=self.known.members[slow], hessian=found[0], slope=found[1])

    def put_figures(self, round_name: str, used: IntArray, figures: FloatArray) -> None:
        """Write what a pass found out about the patterns of the core, out of all used ones."""
        own = self.known.own[used]
        path = self.store.job_folder(round_name, self.number) / FIGURES
        save_arrays(path, numbers=self.known.members[used][own], figures=figures[own])

    def _residual(self, model: ScanModel, indices: IntArray) -> ForwardResidual:
        likelihood = Likelihood(self.store.plan["likelihood"])
        return ForwardResidual(model, self.patterns, indices=indices, max_patterns=len(indices), likelihood=likelihood)

    @cached_property
    def counts(self) -> float:
        """Counts of all judging patterns."""
        xp, judges, total = self.library.xp, self.known.judges, 0.0
        for part in slices_of(len(judges), _READ):
            measured, _ = self.patterns.measured(self.patterns.amplitudes(judges[part]))
            total += float(xp.sum(measured * measured, dtype=xp.float64))
        return total
