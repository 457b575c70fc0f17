"""Compare all stages of one batch between two backends, models or devices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ptychopinn.atomic import write_bytes, write_json
from ptychopinn.bundle import read_bundle
from ptychopinn.config.build import build
from ptychopinn.config.reading import ReadOptions
from ptychopinn.data.io import read_scan
from ptychopinn.data.subsampling import nearest_to_middle
from ptychopinn.errors import DataError, UsageError
from ptychopinn.jobs import LOG, JobError, Task, run_job
from ptychopinn.monitor import NULL_MONITOR, Monitor
from ptychopinn.parity.stages import (
    OFFSETS,
    STAGES,
    difference_of,
    first_difference,
    offset_of,
    statistics_of,
)
from ptychopinn.plugins import ALIASES, discover
from ptychopinn.reconstructor import ReconstructorSpec
from ptychopinn.report import attempt, stage_picture
from ptychopinn.typing import AnyArray, StrPath
from ptychopinn.workflows.folders import FolderKind, model_path, output_folder

_CHECK = FolderKind("check", frozenset({"stats.json", "offsets.json", "a", "b", *(f"{stage}.png" for stage in STAGES)}))
_PICTURES = 8  # of a stage, at most
TOLERANCE = 1e-4  # relative; required of archives across backends


@dataclass(frozen=True)
class ParityResult:
    """Result of a check."""

    folder: Path
    first: str | None  # the first stage that differs; None if all agree
    differences: Mapping[str, Mapping[str, Any]]  # stage to its relative and its largest difference


def parity_run(  # noqa: PLR0913
    data_path: StrPath,
    models: Sequence[StrPath],
    output: StrPath,
    *,
    backends: Sequence[str] = (),
    devices: Sequence[str] = (),
    patterns: int = 8,
    tolerance: float = TOLERANCE,
    options: Mapping[str, object] | None = None,
    reading: ReadOptions | None = None,
    overwrite: bool = False,
    monitor: Monitor = NULL_MONITOR,
) -> ParityResult:
    """Compare two backends or two devices with one model, or two models, on one batch of patterns.

    Parameters
    ----------
    data_path:
        The scan, NPZ; its middle patterns are the batch.
    models:
        One model archive or run directory, or two.
    output:
        The directory to create, with ``stats.json``, ``offsets.json`` and a picture of each stage.
    backends:
        Two names; empty: those that wrote the models.
    devices:
        Two values of the option ``accelerator``; empty: that of ``options``.
    tolerance:
        Relative difference of a stage that counts as rounding.
    options:
        Fields of the backends' options; each backend gets the fields that it knows.

    Raises
    ------
    PtychoPinnError
        If something is refused, or a side fails, with its reason.
    """
    reading = reading or ReadOptions()
    pairs = len(backends) in (0, 2) and len(devices) in (0, 2)
    if not 1 <= len(models) <= 2 or not pairs or (len(models) == 1 and not backends and not devices):
        raise UsageError(
            f"{len(models)} models, {len(backends)} backends and {len(devices)} devices were given.",
            "Give one model and two backends or two devices, or two models.",
        )
    archives = [model_path(path) for path in models] * (3 - len(models))
    written = [read_bundle(path).manifest.writer.backend for path in archives]
    names = [ALIASES.get(name, name) for name in backends] or written
    specs = [discover().get(name) for name in names]
    given = [_options(spec, options or {}, device) for spec, device in zip(specs, devices or (None, None), strict=True)]
    labels = [", ".join(filter(None, words)) for words in zip(names, devices or (None, None), strict=True)]
    data = read_scan(data_path, **dict(reading))
    if not 1 <= patterns <= len(data):
        raise DataError(f"A batch of {patterns} patterns was asked for; the scan has {len(data)}.", "Ask for fewer.")
    indices = nearest_to_middle(data.positions, patterns)
    with output_folder(output, _CHECK, overwrite=overwrite) as folder:
        sides = {}
        for side, archive, spec, own, label in zip("ab", archives, specs, given, labels, strict=True):
            home = folder / side
            home.mkdir()
            arguments = {
                "scan": {"path": Path(data_path).resolve(), **reading.model_dump(mode="json")},
                "model": archive.resolve(),
                "backend": spec.name,
                "options": own,
                "indices": indices.tolist(),
                "output": home / "stages.npz",
            }
            sides[side] = _stages(home, arguments, f"{side} ({label}, {archive.name})", monitor)
        return _report(folder, sides, dict(zip("ab", labels, strict=True)), tolerance)


def _options(spec: ReconstructorSpec, options: Mapping[str, object], device: str | None) -> dict[str, object]:
    """The options that a backend knows, with a device, as JSON; checked before any work."""
    own = {key: value for key, value in options.items() if key in spec.options.model_fields}
    if device is not None:
        own["accelerator"] = device
    return build(spec.options, own).model_dump(mode="json", include=set(own))


def _stages(home: Path, arguments: Mapping[str, Any], name: str, monitor: Monitor) -> dict[str, AnyArray]:
    try:
        run_job(Task("ptychopinn.parity.worker:write_stages", arguments), home, monitor=monitor)
    except JobError as error:
        log = (home / LOG).read_text("utf-8", "replace")  # for --debug, because the directory is removed
        failed = JobError(f"Side {name} failed: {error.problem}", error.remedy, exit_code=error.exit_code, details=log)
        failed.add_note(log)
        raise failed from error
    with np.load(arguments["output"], allow_pickle=False) as file:
        return dict(file)


def _report(
    folder: Path, sides: Mapping[str, Mapping[str, AnyArray]], labels: Mapping[str, str], tolerance: float
) -> ParityResult:
    a, b = sides["a"], sides["b"]
    differences = {stage: difference_of(a[stage], b[stage]) for stage in STAGES}
    first = first_difference(differences, tolerance)
    stats = {
        "sides": dict(labels),
        "tolerance": tolerance,
        "first_difference": first,
        "differences": differences,
        "stages": {stage: {side: statistics_of(found[stage]) for side, found in sides.items()} for stage in STAGES},
    }
    write_json(folder / "stats.json", stats)
    offsets = {
        "patches_px": {side: found[OFFSETS].tolist() for side, found in sides.items()},
        "stages": {stage: offset_of(a[stage], b[stage]) for stage in STAGES},
    }
    write_json(folder / "offsets.json", offsets)
    for stage in STAGES:
        shown = None if stage == "canvas" else slice(_PICTURES)
        rows = {f"{side}: {labels[side]}": found[stage][shown] for side, found in sides.items()}
        relative = differences[stage]["relative"]
        summary = differences[stage].get("reason") if relative is None else f"relative difference {relative:.2e}"
        title = f"{stage.replace('_', ' ')}: {summary}"
        if (png := attempt(f"The picture of {stage}", partial(stage_picture, rows, title=title))) is not None:
            write_bytes(folder / f"{stage}.png", png)
    return ParityResult(folder, first, differences)
