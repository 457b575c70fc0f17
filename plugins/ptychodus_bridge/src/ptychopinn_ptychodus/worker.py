"""The worker process: ``python -m ptychopinn_ptychodus.worker JOB.json``.

Runs one job and ends, so that every call has a clean device and its memory is free afterwards. Events go out as JSON
lines on the standard output as it was at the start; whatever else prints goes to the standard error. A line "stop" on
the standard input, or its end (the parent is gone), ends the work: a training saves its model first, within a limit.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ptychopinn.errors import Cancelled, PtychoPinnError
from ptychopinn.monitor import Monitor, Progress
from ptychopinn_ptychodus.jobs import STOP_FAILED, Job, event

STOP_LIMIT_S = 9.0  # from being told to stop to being gone
_PROGRESS_EVERY_S = 0.1
_LOSS_EVERY_S = 0.05
_LOG = logging.getLogger("ptychopinn.ptychodus")


class Channel:
    """Where events go. Safe from several threads; a parent that is gone is no error."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._lock = descriptor, threading.Lock()

    def send(self, kind: str, **content: Any) -> None:
        """Send one event."""
        line = event(kind, **content)
        with self._lock, contextlib.suppress(OSError):  # the work goes on: its model is worth saving
            while line:
                line = line[os.write(self._descriptor, line) :]


class _ChannelHandler(logging.Handler):
    """Log records as events."""

    def __init__(self, channel: Channel) -> None:
        super().__init__()
        self._channel = channel

    def emit(self, record: logging.LogRecord) -> None:
        self._channel.send("log", name=record.name, level=record.levelno, message=self.format(record))


class _Reporter:
    """Progress as events, not more than some a second, and the loss averaged over short stretches of batches.

    A stretch is a fiftieth of the training so far: a curve grows from the first second on, and stays short.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel, self._sent, self._stage = channel, 0.0, ""
        self._batches, self._sum, self._count = 0, 0.0, 0
        self._begun = self._closed = 0.0

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        loss = progress.figures.get("loss")
        if loss is not None:
            self._take_loss(loss, now)
        if progress.stage == self._stage and progress.done != progress.total and now - self._sent < _PROGRESS_EVERY_S:
            return
        self._sent, self._stage = now, progress.stage
        self._channel.send("progress", stage=progress.stage, done=progress.done, total=progress.total)

    def _take_loss(self, loss: float, now: float) -> None:
        if not self._batches:
            self._begun = self._closed = now
        self._batches += 1
        self._sum, self._count = self._sum + loss, self._count + 1
        if now - self._closed >= max(_LOSS_EVERY_S, 0.02 * (now - self._begun)):
            self._channel.send("loss", batches=self._batches, value=self._sum / self._count)
            self._sum, self._count, self._closed = 0.0, 0, now


def main(arguments: list[str] | None = None) -> int:
    """Run a job; the exit code is that of the command line's errors."""
    channel = Channel(os.dup(1))
    os.dup2(2, 1)  # frameworks print; that must not get between the events
    root = logging.getLogger()
    root.addHandler(_ChannelHandler(channel))
    logging.getLogger("ptychopinn").setLevel(logging.INFO)
    monitor = Monitor(_Reporter(channel))
    threading.Thread(target=_listen, args=(monitor,), daemon=True).start()
    (path,) = sys.argv[1:] if arguments is None else arguments
    try:
        job = Job.model_validate_json(Path(path).read_text("utf-8"))
        with _scratch_of(job, monitor):
            _run(job, channel, monitor)
    except Cancelled as cancelled:
        channel.send("cancelled", message=str(cancelled))
        return cancelled.exit_code
    except PtychoPinnError as error:
        channel.send("error", problem=error.problem, remedy=error.remedy, type=type(error).__name__, trace="")
        return error.exit_code
    except BaseException as error:  # it is told, and the process ends
        channel.send(
            "error",
            problem=f"{type(error).__name__}: {error}",
            remedy="",
            type=type(error).__name__,
            trace=traceback.format_exc(),
        )
        return 1
    return 0


def _listen(monitor: Monitor) -> None:
    """Cancel when told so, or when the parent is gone; then see to it that this process ends in time."""
    for line in sys.stdin:
        if line.strip() == "stop":
            _end_in_time(monitor)
    nowhere = os.open(os.devnull, os.O_WRONLY)  # nobody reads any more; printing must not fail
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    _end_in_time(monitor)


def _end_in_time(monitor: Monitor) -> None:
    if monitor.cancelled:
        return
    monitor.cancel()
    watchdog = threading.Timer(STOP_LIMIT_S, os._exit, args=(STOP_FAILED,))
    watchdog.daemon = True
    watchdog.start()


@contextlib.contextmanager
def _scratch_of(job: Job, monitor: Monitor) -> Iterator[None]:
    """Clear the scratch folder away after a stop: the parent may be gone by then."""
    try:
        yield
    finally:
        if monitor.cancelled:
            shutil.rmtree(job.scratch, ignore_errors=True)


def _run(job: Job, channel: Channel, monitor: Monitor) -> None:
    if job.kind == "train":
        _train(job, channel, monitor)
    else:
        _infer(job, channel, monitor)


def _train(job: Job, channel: Channel, monitor: Monitor) -> None:
    from ptychopinn.config import ModelConfig, TrainConfig
    from ptychopinn.config.build import build
    from ptychopinn.config.train import SimulateObjects
    from ptychopinn.errors import ConfigError, DataError, TrainingError
    from ptychopinn.plugins import discover
    from ptychopinn.reconstructor import Capability
    from ptychopinn_ptychodus.training_data import TrainingFiles, find_training_files, read_training_data

    assert job.folder is not None
    spec = discover().get(job.backend)
    files = find_training_files(job.folder)
    if files is None and job.scan is not None:
        _LOG.info("%s holds no training data; training on the scan that is open.", job.folder)
        files = TrainingFiles(train=job.scan)
    if files is None:
        raise DataError(
            f"{job.folder} holds nothing to train on: no *.npz, and not both diffraction.h5 and product.h5.",
            "Export training data into it, or choose another directory.",
        )
    _LOG.info("Training on %s.", files.train or files.diffraction)
    data, validation = read_training_data(files)
    model = build(ModelConfig, {"N": data.N, **job.settings.get("model", {}), "model_type": job.model_type})
    config = build(TrainConfig, job.settings.get("train", {}))
    options = build(spec.options, job.settings.get("execution", {}))
    if config.simulate_objects is not SimulateObjects.OFF and Capability.SIMULATED_OBJECTS not in spec.capabilities:
        raise ConfigError(
            f"The backend '{spec.name}' cannot train on simulated objects.", "Set simulate_objects to off."
        )
    channel.send("stage", stage="load")
    reconstructor = spec.load_class()(model, options)
    channel.send("stage", stage="begin")
    try:
        result = reconstructor.train(data, config, validation=validation, monitor=monitor)
    except TrainingError:
        with contextlib.suppress(PtychoPinnError):  # where it has no good weights, the reason above is what to tell
            reconstructor.save(job.output)
            channel.send("model", path=str(job.output), losses=[], status="failed")
        raise
    if not result.patterns_seen:
        raise Cancelled("Training was stopped before its first step; there is no model.")
    losses = [
        [int(e), v] for e, v in zip(result.history.get("epoch", []), result.history.get("loss", []), strict=False)
    ]
    _save_with_losses(reconstructor, job, losses)
    for warning in result.warnings:
        _LOG.warning("%s", warning)
    _LOG.info(
        "Training %s after %.1f s and %d epochs; the model is %s.",
        result.status.value.replace("_", " "),
        result.seconds,
        len(losses),
        job.output,
    )
    channel.send("model", path=str(job.output), losses=losses, status=result.status.value)


def _save_with_losses(reconstructor: Any, job: Job, losses: list[list[float]]) -> None:
    """Save a model with the history of its training in the manifest, where inference finds it again."""
    from ptychopinn.bundle import read_bundle, write_bundle
    from ptychopinn_ptychodus.archives import with_losses

    reconstructor.save(job.scratch / "saved.zip")
    bundle = read_bundle(job.scratch / "saved.zip")
    job.output.parent.mkdir(parents=True, exist_ok=True)
    write_bundle(job.output, with_losses(bundle.manifest, losses), bundle.weights)


def _infer(job: Job, channel: Channel, monitor: Monitor) -> None:
    import numpy as np

    from ptychopinn.config import InferConfig
    from ptychopinn.config.build import build
    from ptychopinn.data.npz import read_scan
    from ptychopinn.plugins import discover
    from ptychopinn.reconstruction import reconstruct

    assert job.scan is not None
    assert job.model is not None
    spec = discover().get(job.backend)
    data = read_scan(job.scan)
    config = build(InferConfig, job.settings.get("infer", {}))
    options = build(spec.options, job.settings.get("execution", {}))
    channel.send("stage", stage="load")
    reconstructor = spec.load_class().load(job.model, options)
    channel.send("stage", stage="begin")
    result = reconstruct(reconstructor, data, config, monitor=monitor)
    with job.output.open("wb") as file:
        np.savez(file, object=result.object, origin=np.array(result.frame.origin, np.int64))
    _LOG.info(
        "%d patches placed, forward residual R = %.4f, synchronisation %s.",
        result.placed,
        result.residual,
        str(result.synchronised),
    )
    channel.send("result", path=str(job.output), residual=result.residual, placed=result.placed)


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # not through the frameworks' exit handlers, which may hang
