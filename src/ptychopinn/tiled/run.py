"""Reconstruct one scan by many workers, in tiles.

A probe from the middle of the scan is used everywhere. Then each pass is a round of jobs, one for each tile. A job
reads object and momentum of its tile with a halo around it, which its neighbours wrote, makes the pass in the order in
which one process would make it, and writes its core. The slow phase of the object is solved from the gradients that
all jobs measured; positions and flux are fitted to all patterns. So the result is that of one process, but for what
happens in a pass beyond the halo.
"""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from ptychopinn.assembly import PhaseRule
from ptychopinn.atomic import read_record, write_json
from ptychopinn.bundle import read_bundle
from ptychopinn.config.automatic import AutomaticConfig, Freedom
from ptychopinn.config.execution import Accelerator
from ptychopinn.config.run import AllSettings
from ptychopinn.config.tiles import TilesConfig
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.io import read_scan
from ptychopinn.digests import digest_of
from ptychopinn.errors import Cancelled, UsageError
from ptychopinn.geometry import Frame
from ptychopinn.jobs import Job, JobError, Task, Workers, choose_workers, run_jobs
from ptychopinn.metrics.quality import deviations_above
from ptychopinn.monitor import NULL_MONITOR, Monitor
from ptychopinn.refinement.judging import SURE_DEVIATIONS, is_negligible
from ptychopinn.tiled.fits import PatternFits
from ptychopinn.tiled.network import put_pairs, put_phases
from ptychopinn.tiled.outputs import TiledObject, write_tiled
from ptychopinn.tiled.plan import cut_scan, tile_count
from ptychopinn.tiled.prepare import Network, margin_of, prepare_tiles
from ptychopinn.tiled.store import (
    GRADIENTS,
    GRID,
    LAST,
    OBJECT,
    PLAN,
    START,
    VELOCITY,
    TileStore,
    load_arrays,
    save_arrays,
)
from ptychopinn.tiled.worker import PHASE, PassPlan, PassStart, grid_from
from ptychopinn.typing import FloatArray, StrPath
from ptychopinn.workflows import RunResult, find_start
from ptychopinn.workflows.folders import RUN, FolderKind, output_folder, refuse_model_folder, run_log
from ptychopinn.workflows.pretrained import PRETRAINED

WORK = "tiles"
_RECORD, _MEASURED, _STITCHED, _DRAWN = "result.json", "measured", "stitched", "drawn"
_NETWORK, _WORKER = "ptychopinn.tiled.network:", "ptychopinn.tiled.worker:"
_PLAN = f"{WORK}/{PLAN}"
_TILED = FolderKind("reconstruction in tiles", RUN.names | {WORK}, RUN.folders, (_PLAN,), _PLAN, creates_on_resume=True)
_log = logging.getLogger(__name__)


def tiled_run(  # noqa: PLR0913
    data_path: StrPath,
    output: StrPath,
    settings: AllSettings[Any, Any],
    *,
    model: StrPath = PRETRAINED,
    resume: bool = False,
    overwrite: bool = False,
    workers: Workers | None = None,
    monitor: Monitor = NULL_MONITOR,
) -> RunResult:
    """Reconstruct a scan file into a directory, by workers that each need memory for a tile.

    Parameters
    ----------
    settings:
        ``tiles``, ``automatic.may_free``, ``execution``, ``reading`` and ``backend`` are used.
    model:
        As in `ptychopinn.workflows.reconstruct_run`. The network draws the start of the passes where the
        reconstruction of the middle of the scan starts from it too.
    resume:
        Do not repeat the jobs that are done.
    workers:
        Where jobs run; None are those that the settings ask for.

    Raises
    ------
    PtychoPinnError
        If something is refused; raised before any long work.
    JobError
        If a tile failed; what is done stays for ``resume``.
    Cancelled
        If the monitor was cancelled; what is done stays for ``resume``.
    """
    config, given = settings.tiles, settings.automatic.model_fields_set
    if idle := [name for name in AutomaticConfig.model_fields if name in given and name != "may_free"]:
        raise UsageError(f"A scan in tiles takes no {' and no '.join(idle)}.", "Leave it out.")
    if workers is None:
        workers = choose_workers(config, {getattr(settings.execution, "accelerator", Accelerator.AUTO)}, stay=True)
    data = read_scan(data_path, **dict(settings.reading))
    count = config.tiles
    if not isinstance(count, int):
        count = tile_count(Frame.around(data.positions, data.N), data.N, config.workers or 1)
    tiles = cut_scan(data.positions, data.N, count, margin_of(settings.automatic))
    network = _network(model, data, settings.backend)
    if network is not None:
        refuse_model_folder(network.archive, output)
    with output_folder(output, _TILED, overwrite=overwrite, resume=resume, keep=(_PLAN,)) as folder, run_log(folder):
        store = prepare_tiles((folder / WORK).absolute(), data_path, data, tiles, settings, network)
        rounds = _Rounds(store, config, workers, monitor)
        try:
            with workers:
                found = rounds.run()
        except Cancelled as error:
            problem = f"The reconstruction was cancelled; {rounds.ended} of {rounds.total} jobs are done."
            raise Cancelled(problem, "Continue with --resume.") from error
        result = write_tiled(folder, data, store, found)
        shutil.rmtree(folder / WORK)
        return result


def _network(model: StrPath, data: ScanDataset, backend: str | None) -> Network | None:
    """The network that `reconstruct` would use; None for a pretrained one that is for the inner half of patterns."""
    archive, backend = find_start(model, data, backend)
    if archive is None:
        return None
    network = read_bundle(archive).manifest.model
    if network.N != data.N and str(model) == PRETRAINED:
        return None
    if network.N != data.N:
        raise UsageError(
            f"The model is for patterns of {network.N} x {network.N} pixels, the scan has {data.N} x {data.N}.",
            "Use another model, or --model none.",
        )
    return Network(archive, backend, network.patch_size)


@dataclass(frozen=True, eq=False)
class _Round:
    """A finished round of jobs, one for each tile."""

    name: str
    values: list[dict[str, Any]]  # what the jobs returned

    def shares(self, key: str = "missed") -> FloatArray:
        """What each judging pattern contributes to the square of the forward residual."""
        missed = np.concatenate([value[key] for value in self.values])
        found: FloatArray = missed / max(sum(value["counts"] for value in self.values), 1e-300)
        return found

    @property
    def residual(self) -> float:
        """The forward residual; infinite if it is not finite."""
        square = float(self.shares().sum())
        return math.sqrt(square) if math.isfinite(square) else math.inf


class _Rounds:
    """The rounds of jobs of a reconstruction in tiles."""

    def __init__(self, store: TileStore, config: TilesConfig, workers: Workers, monitor: Monitor) -> None:
        self._store, self._config, self._workers, self._monitor = store, config, workers, monitor
        self._tiles = range(len(store.cores))
        self.total = len(self._tiles) * (store.plan["passes"] + 1) + 1
        self.ended, self._residual = 0, math.nan
        self._sure = SURE_DEVIATIONS if store.plan["noisy"] else 0.0

    def run(self) -> TiledObject:
        """Do what is not done. Jobs with the same arguments as a finished one are not done again."""
        (middle,) = self._do("middle", f"{_WORKER}solve_middle", [{}]).values
        flat = self._round(START, f"{_WORKER}begin_tile")
        drawn = flat if middle["rule"] is None else self._draw(flat, PhaseRule(middle["rule"]))
        first = best = before = drawn
        start = PassStart(drawn is not flat, tuple(map(Freedom, middle["free"])))
        fits = PatternFits(self._store, start)
        names, kept, settled, fitted = [START, drawn.name], 0, False, None
        for done in range(self._store.plan["passes"]):
            last = before.name
            before, settled = self._pass(done, before, start, settled=settled)
            if start.free:
                fits.fit(before.name)
            if before.residual < best.residual and deviations_above(first.shares(), before.shares()) > self._sure:
                best, kept, fitted = before, done + 1, last
            for old in names:  # nothing reads them any more
                self._store.forget(old, VELOCITY, LAST, *(() if old == best.name else (OBJECT,)))
            names.append(before.name)
            _log.info("Pass %d: forward residual %.4f.", done + 1, before.residual)
        return TiledObject(best.name, fitted, best.residual, kept, start, tuple(middle["story"]))

    def _draw(self, flat: _Round, rule: PhaseRule) -> _Round:
        """The object of the network, as bright as the counts say; or the flat one, if it explains the patterns better.

        The mean of the object is real and positive, as where nothing covers it.
        """
        measured = None
        if rule is not PhaseRule.OFF:
            measured = _MEASURED
            self.total += len(self._tiles)
            put_pairs(self._store, measured)
            self._round(measured, f"{_NETWORK}measure_tile")
            put_phases(self._store, measured, rule)
        self.total += 2 * len(self._tiles)
        stitched = self._round(_STITCHED, f"{_NETWORK}stitch_tile", measured=measured)
        light = np.concatenate([value["light"] for value in stitched.values])
        total = sum(complex(*value["total"]) for value in stitched.values)
        factor = math.sqrt(light.mean()) * total.conjugate() / max(abs(total), 1e-300)
        drawn = self._round(_DRAWN, f"{_NETWORK}scale_tile", before=_STITCHED, factor=[factor.real, factor.imag])
        self._store.forget(_STITCHED, OBJECT)
        _log.info("The network's object: forward residual %.4f; a flat one: %.4f.", drawn.residual, flat.residual)
        return drawn if drawn.residual < flat.residual else flat

    def _pass(self, done: int, before: _Round, start: PassStart, *, settled: bool) -> tuple[_Round, bool]:
        """Make a pass, and take off a slow phase before it; return also whether there is none any more."""
        phase = (done > 0 or start.predicted) and not settled and self._solve_slow_phase(before.name)
        more = not settled and done + 1 < self._store.plan["passes"]
        name, plan = f"pass-{done + 1:03}", PassPlan(done, before.name, phase, more)
        now = self._round(name, f"{_WORKER}make_pass", start=asdict(start), plan=asdict(plan))
        if not phase:
            return now, settled
        without, taken_off = now.shares("without"), now.shares("taken_off")
        negligible = is_negligible(self._phase_at_positions(before.name), without, taken_off)
        settled = negligible and done > 0  # after the first pass there may be a slow phase again
        if deviations_above(without, taken_off) <= self._sure:
            self.total += len(self._tiles)
            plan = replace(plan, phase=False, gradients=more and not settled)
            now = self._round(f"{name}-again", f"{_WORKER}make_pass", start=asdict(start), plan=asdict(plan))
        return now, settled

    def _solve_slow_phase(self, name: str) -> bool:
        """Write the slow phase that the objects of a round lack; false if the patterns do not determine it."""
        store, grid = self._store, grid_from(load_arrays(self._store.folder / GRID))
        parts = [load_arrays(store.job_folder(name, number) / GRADIENTS) for number in self._tiles]
        numbers, hessian, slope = (
            np.concatenate([part[key] for part in parts]) for key in ("numbers", "hessian", "slope")
        )
        order = np.argsort(numbers)
        fitted = store.read_fitted(name, Freedom.POSITIONS)
        local = store.frame.local((store.positions() if fitted is None else fitted)[numbers[order]])
        coefficients = grid.solve(local, hessian[order], slope[order])
        if coefficients is not None:
            save_arrays(store.folder / name / PHASE, coefficients=coefficients)
        return coefficients is not None

    def _phase_at_positions(self, name: str) -> FloatArray:
        """The slow phase of a round at the scan's positions."""
        store, grid = self._store, grid_from(load_arrays(self._store.folder / GRID))
        coefficients = load_arrays(store.folder / name / PHASE)["coefficients"]
        return grid.values(coefficients, np.round(store.frame.local(store.positions())))

    # Jobs

    def _round(self, name: str, function: str, **arguments: Any) -> _Round:
        """A job for each tile, which writes to the round of this name."""
        return self._do(name, function, [{"number": number, "after": name, **arguments} for number in self._tiles])

    def _do(self, name: str, function: str, arguments: Sequence[Mapping[str, Any]]) -> _Round:
        """Do jobs that were not done with the same arguments."""
        found: dict[str, dict[str, Any]] = {}
        jobs, keys = [], {}
        for number, values in enumerate(arguments):
            folder = self._store.job_folder(name, number)
            keys[str(folder)] = key = digest_of([function, values])
            record = read_record(folder / _RECORD)
            if record.get("key") == key:
                found[str(folder)] = record["value"]
                continue
            task = Task(function, {"store": str(self._store.folder), **values})
            jobs.append(Job(f"{name}, tile {number + 1}" if len(arguments) > 1 else name, task, folder))
        self.ended += len(found)
        self._report()
        for job, value in run_jobs(jobs, self._workers, retries=self._config.retries, monitor=self._monitor):
            if isinstance(value, JobError):
                raise JobError(
                    f"{job.name}: {value.problem}",
                    f"{value.remedy} What is done stays for --resume.".strip(),
                    exit_code=value.exit_code,
                    details=value.details,
                )
            write_json(job.folder / _RECORD, {"key": keys[str(job.folder)], "value": value})
            found[str(job.folder)] = value
            self.ended += 1
            self._report()
        result = _Round(name, [found[str(self._store.job_folder(name, number))] for number in range(len(arguments))])
        if "missed" in result.values[0]:
            self._residual = result.residual
        return result

    def _report(self) -> None:
        figures = {"residual": self._residual} if math.isfinite(self._residual) else {}
        self._monitor.report("tiles", self.ended, self.total, figures)
