"""The work of one candidate in its own process: train, reconstruct the scans, score them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ptychopinn.atomic import write_json
from ptychopinn.comparison.candidates import CandidatePlan
from ptychopinn.comparison.files import read_json, read_scores, write_scores
from ptychopinn.comparison.scoring import Figure, ScoredObject, score_scan
from ptychopinn.config.build import build
from ptychopinn.config.reading import ReadOptions
from ptychopinn.config.run import RunSettings
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.io import read_scan
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
from ptychopinn.workflows.reference import reference_of

_PATCH_SHARE = 4  # a quarter of the memory budget is for patches whose phases are not known yet
MODEL, RUN_CONFIG, PRODUCT = "wts.h5.zip", "config.yaml", "reconstruction.h5"


def run_candidate(
    folder: str,
    plan: Mapping[str, Any],
    scans: Mapping[str, Mapping[str, Any]],
    split: Sequence[str],
    memory_mb: int | None,
    monitor: Monitor,
) -> None:
    """Reconstruct and score every scan that is not done yet. Existing reconstructions are only scored.

    ``scans`` have ``path``, ``reference`` and ``reading``; of those in ``split``, odd and even patterns are also
    reconstructed separately. Stages of the progress are prefixed with the name of the scan and ": ".
    """
    _CandidateWorker(Path(folder), CandidatePlan.from_dict(plan, discover()), scans, split, memory_mb, monitor).run()


class _CandidateWorker:
    """The work of one candidate."""

    def __init__(
        self,
        folder: Path,
        plan: CandidatePlan,
        scans: Mapping[str, Mapping[str, Any]],
        split: Sequence[str],
        memory_mb: int | None,
        monitor: Monitor,
    ) -> None:
        self._folder, self._plan, self._scans, self._split = folder, plan, scans, split
        self._scan = ""
        # A candidate is never asked to stop; its process is ended.
        self._monitor = Monitor(lambda p: monitor.report(f"{self._scan}: {p.stage}", p.done, p.total))
        self._settings = plan.settings
        self._solver = {} if plan.solver is None else plan.solver.model_dump()
        if memory_mb:
            share = max(memory_mb // _PATCH_SHARE, 1)
            if plan.settings is not None:
                infer = plan.settings.infer
                limited = {"memory_budget_mb": min(infer.memory_budget_mb, share)}
                self._settings = plan.settings.model_copy(update={"infer": infer.model_copy(update=limited)})
            if "cache_mb" in self._solver:
                self._solver["cache_mb"] = min(self._solver["cache_mb"], share)

    def run(self) -> None:
        """Reconstruct and score every scan that is not done yet."""
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

    def _settings_of(self, scan: str) -> RunSettings[Any]:
        assert self._settings is not None
        return self._settings.model_copy(update={"reading": self._reading(scan)})

    def _reading(self, scan: str) -> ReadOptions:
        return build(ReadOptions, self._scans[scan]["reading"])

    def _train(self, scan: str) -> RunResult:
        plan, folder = self._plan, self._folder / scan
        resumes = (folder / RUN_CONFIG).is_file() and Capability.RESUME in discover().get(plan.source).capabilities
        return train_run(
            self._scans[scan]["path"],
            folder,
            self._settings_of(scan),
            resume=resumes,
            overwrite=not resumes,
            monitor=self._monitor,
        )

    def _predict(self, scan: str) -> RunResult:
        return infer_run(
            self._folder / "train",
            self._scans[scan]["path"],
            self._folder / scan,
            self._settings_of(scan),
            overwrite=True,
            monitor=self._monitor,
        )

    def _solve(self, scan: str) -> RunResult:
        return solve_run(
            self._scans[scan]["path"],
            self._folder / scan,
            solver=self._plan.source,
            options=self._solver,
            reading=self._reading(scan),
            overwrite=True,
            monitor=self._monitor,
        )

    def _score(self, scan: str, took: Mapping[str, float]) -> None:
        source = self._scans[scan]
        data = read_scan(source["path"], **dict(self._reading(scan)))
        product = read_product(self._folder / scan / PRODUCT)
        origin = origin_of(product, data.positions_by_number)
        reason = "not asked for" if scan not in self._split else ""
        if len(data) < 4:
            reason = "too few patterns to split"
        frame = Frame((product.object.shape[0], product.object.shape[1]), origin)
        halves: tuple[ComplexArray, ComplexArray] | str = reason or self._halves(data, frame)
        self._monitor.report("score", 0, 1)
        scores = score_scan(
            data,
            ScoredObject(product.object, origin, product.probe, product.local_positions + np.asarray(origin)),
            reference_of(data, source["reference"]),
            halves,
        )
        more: dict[Figure, float] = {
            ("run", "patterns"): float(len(data)),
            ("run", "training_seconds"): took["training_seconds"],
            ("run", "reconstruction_seconds"): len(data) / took["patterns_per_second"],
            ("run", "patterns_per_second"): took["patterns_per_second"],
        }
        write_scores(self._folder, scan, scores, more)

    def _training_seconds(self, run: RunResult) -> float:
        """Duration of the candidate's training; 0 for a solver."""
        if not self._plan.is_network:
            return 0.0
        if "training seconds" in run.figures:
            return float(run.figures["training seconds"])
        return float(read_json(self._folder / "run-train.json")["training_seconds"])  # the training scan comes first

    def _halves(self, data: ScanDataset, frame: Frame) -> tuple[ComplexArray, ComplexArray]:
        """Reconstruct the odd and the even patterns separately."""
        found = []
        for first in (0, 1):
            part = data.select(np.arange(first, len(data), 2))
            half = self._reconstruct_part(part)
            whole = np.ones(frame.shape, np.complex64)
            frame.paste(whole, half.object, half.frame)
            found.append(whole)
        return found[0], found[1]

    def _reconstruct_part(self, data: ScanDataset) -> Reconstruction:
        source = self._plan.source
        if self._settings is not None:
            model = load_reconstructor(self._folder / "train" / MODEL, backend=source, options=self._settings.execution)
            return reconstruct(model, data, self._settings.infer, monitor=self._monitor)
        return solve(create_solver(source, self._solver), data, monitor=self._monitor)
