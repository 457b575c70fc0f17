"""Positions and flux of the patterns of a scan in tiles, fitted to all of them after a pass, as one process does it."""

from __future__ import annotations

import numpy as np

from ptychopinn.config.automatic import Freedom
from ptychopinn.solvers.flux import fit_flux
from ptychopinn.solvers.positions import FreePositions
from ptychopinn.tiled.store import FIGURES, FITTED, TileStore, load_arrays, save_arrays
from ptychopinn.tiled.worker import PassStart


class PatternFits:
    """Fits what is free after each round, and writes it into the round. Held-out patterns keep what was given."""

    def __init__(self, store: TileStore, start: PassStart) -> None:
        self._store, self._free, self._schedule = store, start.free, start.schedule(store.plan)
        self._positions = store.positions()
        self._flux = np.ones(len(self._positions), np.float32)
        self._moves: FreePositions | None = None

    def fit(self, round_name: str) -> None:
        """Fit to the figures that the jobs of a round wrote."""
        tiles = range(len(self._store.cores))
        parts = [load_arrays(self._store.job_folder(round_name, number) / FIGURES) for number in tiles]
        used, figures = (np.concatenate([part[key] for part in parts]) for key in ("numbers", "figures"))
        order = np.argsort(used)
        used, figures = used[order], figures[order]
        if Freedom.POSITIONS in self._free:
            self._moves = self._moves or FreePositions(self._positions[used], self._schedule.position_step)
            equations = figures[:, :4].reshape(-1, 2, 2), figures[:, 4:6]
            self._positions[used] = self._moves.move(self._positions[used], *equations)
        if Freedom.FLUX in self._free:
            self._flux[used] = fit_flux(self._flux[used], figures[:, -2], figures[:, -1])
        found = {Freedom.POSITIONS: self._positions, Freedom.FLUX: self._flux}
        save_arrays(self._store.folder / round_name / FITTED, **{str(one): found[one] for one in self._free})
