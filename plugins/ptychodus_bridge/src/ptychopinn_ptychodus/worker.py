"""Jobs of the worker process: train, infer and reconstruct by the core's workflows, with Ptychodus's files."""

from __future__ import annotations

import contextlib
import csv
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ptychopinn.bundle import read_bundle, write_bundle
from ptychopinn.config.build import build
from ptychopinn.config.run import AllSettings
from ptychopinn.errors import Cancelled, PtychoPinnError, TrainingError
from ptychopinn.monitor import Monitor
from ptychopinn.workflows import RunResult, infer_run, reconstruct_run, run_settings, train_run
from ptychopinn_ptychodus.archives import with_losses
from ptychopinn_ptychodus.training_data import TrainingFiles, find_training_files, nothing_to_train_on, scan_files

_log = logging.getLogger("ptychopinn.ptychodus")


def train(
    folder: str, scan: str | None, scratch: str, output: str, settings: Mapping[str, Any], monitor: Monitor
) -> None:
    """Train, and write the model with the history of its training.

    Parameters
    ----------
    folder:
        Where training data are looked for.
    scan:
        NPZ of the scan that is open, to train on; None: on the files of the folder.
    settings:
        Arguments of `ptychopinn.workflows.run_settings`.
    """
    files = find_training_files(Path(folder)) if scan is None else TrainingFiles(train=Path(scan))
    if files is None:
        raise nothing_to_train_on(Path(folder))
    _log.info("Training on %s.", "the scan that is open" if scan is not None else files.train or files.diffraction)
    data, validation = scan_files(files, Path(scratch))
    run = Path(scratch) / "run"
    try:
        result = train_run(data, run, run_settings(**settings), validation=validation, only_model=True, monitor=monitor)
    except TrainingError:
        with contextlib.suppress(PtychoPinnError):  # where it left no good weights, the reason is what to tell
            _publish(run / "wts.h5.zip", Path(output), [])
        raise
    with result.files["history table"].open(newline="", encoding="utf-8") as table:
        losses = [[int(float(row["epoch"])), float(row["loss"])] for row in csv.DictReader(table) if row["loss"]]
    if not result.figures["patterns trained a second"]:
        raise Cancelled("Training was stopped before its first step; there is no model.")
    _publish(result.files["model"], Path(output), losses)
    for warning in result.warnings:
        _log.warning("%s", warning)
    _log.info("The model of %d epochs is %s.", len(losses), output)


def infer(model: str, scan: str, output: str, settings: Mapping[str, Any], monitor: Monitor) -> RunResult:
    """Reconstruct a scan with a model into a run directory; ``settings`` are those of `run_settings`."""
    result = infer_run(model, scan, output, run_settings(**settings), monitor=monitor)
    return replace(result, verdict=None)  # its words are among the warnings; its arrays need not be sent


def reconstruct(scan: str, output: str, settings: Mapping[str, Any], monitor: Monitor) -> RunResult:
    """Reconstruct a scan without a training into a run directory; ``settings`` are fields of `AllSettings`."""
    result = reconstruct_run(scan, output, settings=build(AllSettings, settings), only_product=True, monitor=monitor)
    return replace(result, verdict=None)


def _publish(model: Path, output: Path, losses: list[list[float]]) -> None:
    """Write a model with the history of its training in the manifest, where inference finds it again."""
    bundle = read_bundle(model)
    output.parent.mkdir(parents=True, exist_ok=True)
    write_bundle(output, with_losses(bundle.manifest, losses), bundle.weights)
