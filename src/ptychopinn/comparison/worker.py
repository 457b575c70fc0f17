"""The work of one leg, in a process of its own: train, reconstruct the scans, score them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ptychopinn.comparison.files import read_json, read_scores, write_json, write_scores
from ptychopinn.comparison.legs import LegPlan
from ptychopinn.comparison.scoring import Figure, score_scan
from ptychopinn.config.build import build
from ptychopinn.config.infer import InferConfig
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.npz import read_scan
from ptychopinn.geometry import Frame
from ptychopinn.monitor import Monitor
from ptychopinn.plugins import discover
from ptychopinn.product import origin_of, read_product
from ptychopinn.reconstruction import Reconstruction, reconstruct
from ptychopinn.reconstructor import Capability
from ptychopinn.typing import ComplexArray
from ptychopinn.workflows import (
    RunResult,
    create_solver,
    infer_run,
    load_reconstructor,
    solve,
    solve_run,
    train_run,
)
from ptychopinn.workflows._reference import reference_of

_PATCH_SHARE = 4  # of the memory budget a quarter is for patches that wait for their phases
MODEL, RUN_CONFIG, PRODUCT = "wts.h5.zip", "config.yaml", "reconstruction.h5"


def run_leg(
    folder: str,
    plan: Mapping[str, Any],
    scans: Mapping[str, Mapping[str, Any]],
    split: Sequence[str],
    memory_mb: int | None,
    monitor: Monitor,
) -> None:
    """Do each scan of a leg that is not done yet; what was reconstructed before is only scored.

    Parameters
    ----------
    folder:
        The leg's own.
    plan:
        Fields of its `LegPlan`.
    scans:
        Name of a scan to ``path``, ``reference``, ``measurement`` and ``nphotons``.
    split:
        Scans of which the odd and the even patterns are reconstructed alone, too.
    memory_mb:
        MiB that it may take.
    monitor:
        Told of progress; the name of the scan and ": " stand before the stage.
    """
    _Leg(Path(folder), LegPlan(**plan), scans, split, memory_mb, monitor).run()


class _Leg:
    """The work of one leg."""

    def __init__(
        self,
        folder: Path,
        plan: LegPlan,
        scans: Mapping[str, Mapping[str, Any]],
        split: Sequence[str],
        memory_mb: int | None,
        monitor: Monitor,
    ) -> None:
        self._folder, self._plan, self._scans, self._split = folder, plan, scans, split
        self._scan = ""
        # A leg is never asked to stop: it is ended.
        self._monitor = Monitor(lambda p: monitor.report(f"{self._scan}: {p.stage}", p.done, p.total))
        infer, solver = dict(plan.infer or {}), dict(plan.solver or {})
        if memory_mb and infer:
            infer["memory_budget_mb"] = max(min(infer["memory_budget_mb"], memory_mb // _PATCH_SHARE), 1)
        if memory_mb and "cache_mb" in solver:
            solver["cache_mb"] = max(min(solver["cache_mb"], memory_mb // _PATCH_SHARE), 1)
        self._infer, self._solver = infer, solver

    def run(self) -> None:
        """Do each scan that is not done yet; what was reconstructed before is only scored."""
        for scan in self._scans:
            if read_scores(self._folder, scan) is not None:
                continue
            self._scan = scan
            self._monitor.report("begin", 0)
            done = self._folder / f"run-{scan}.json"
            if not done.is_file():
                if not self._plan.is_network:
                    run = self._solve(scan)
                else:
                    run = self._train(scan) if scan == "train" else self._predict(scan)
                write_json(
                    done,
                    {
                        "training_seconds": self._training_seconds(run),
                        "patterns_per_second": float(run.figures["patterns a second"]),
                    },
                )
            self._score(scan, read_json(done))

    def _reading(self, scan: str) -> dict[str, Any]:
        return {key: self._scans[scan][key] for key in ("measurement", "nphotons")}

    def _train(self, scan: str) -> RunResult:
        plan, folder = self._plan, self._folder / scan
        assert plan.model is not None
        assert plan.train is not None
        begun = (folder / RUN_CONFIG).is_file() and Capability.RESUME in discover().get(plan.source).capabilities
        return train_run(
            self._scans[scan]["path"],
            folder,
            backend=plan.source,
            model=plan.model,
            train=plan.train,
            infer=self._infer,
            options=plan.execution,
            resume=begun,
            overwrite=not begun,
            monitor=self._monitor,
            **self._reading(scan),
        )

    def _predict(self, scan: str) -> RunResult:
        return infer_run(
            self._folder / "train",
            self._scans[scan]["path"],
            self._folder / scan,
            infer=self._infer,
            options=self._plan.execution,
            backend=self._plan.source,
            overwrite=True,
            monitor=self._monitor,
            **self._reading(scan),
        )

    def _solve(self, scan: str) -> RunResult:
        return solve_run(
            self._scans[scan]["path"],
            self._folder / scan,
            solver=self._plan.source,
            options=self._solver,
            overwrite=True,
            monitor=self._monitor,
            **self._reading(scan),
        )

    def _score(self, scan: str, took: Mapping[str, float]) -> None:
        source = self._scans[scan]
        data = read_scan(source["path"], **self._reading(scan))
        product = read_product(self._folder / scan / PRODUCT)
        origin = origin_of(product, data.positions)
        reason = "not asked for" if scan not in self._split else ""
        if len(data) < 4:
            reason = "too few patterns to split"
        frame = Frame((product.object.shape[0], product.object.shape[1]), origin)
        halves: tuple[ComplexArray, ComplexArray] | str = reason or self._halves(data, frame)
        self._monitor.report("score", 0, 1)
        scores = score_scan(
            data,
            product.object,
            origin,
            product.probe,
            reference_of(data, source["reference"]),
            halves,
            product.local_positions + np.asarray(origin),
        )
        more: dict[Figure, float] = {
            ("run", "patterns"): float(len(data)),
            ("run", "training_seconds"): took["training_seconds"],
            ("run", "reconstruction_seconds"): len(data) / took["patterns_per_second"],
            ("run", "patterns_per_second"): took["patterns_per_second"],
        }
        write_scores(self._folder, scan, scores, more)

    def _training_seconds(self, run: RunResult) -> float:
        """What the leg's training took, whichever scan was reconstructed after it; nothing for a solver."""
        if not self._plan.is_network:
            return 0.0
        if "training seconds" in run.figures:
            return float(run.figures["training seconds"])
        return float(read_json(self._folder / "run-train.json")["training_seconds"])  # the training scan comes first

    def _halves(self, data: ScanDataset, frame: Frame) -> tuple[ComplexArray, ComplexArray]:
        """Objects of the odd and of the even patterns alone."""
        found = []
        for first in (0, 1):
            part = data.select(np.arange(first, len(data), 2))
            half = self._again(part)
            whole = np.ones(frame.shape, np.complex64)
            frame.paste(whole, half.object, half.frame)
            found.append(whole)
        return found[0], found[1]

    def _again(self, data: ScanDataset) -> Reconstruction:
        plan = self._plan
        if plan.is_network:
            model = load_reconstructor(self._folder / "train" / MODEL, backend=plan.source, options=plan.execution)
            return reconstruct(model, data, build(InferConfig, self._infer), monitor=self._monitor)
        return solve(create_solver(plan.source, self._solver), data, monitor=self._monitor)
