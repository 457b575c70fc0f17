"""Loggers of the training history. Trackers are imported only when they are used."""

from __future__ import annotations

import csv
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Protocol

from ptychopinn.atomic import atomic_write, translate_write_error
from ptychopinn.config.execution import LoggerKind
from ptychopinn.errors import PluginError, UsageError

_log = logging.getLogger(__name__)
_MAX_SILENCE_S = 10.0  # of a tracker, at the end of a training


class RunLogger(Protocol):
    """Logs the figures of every epoch."""

    def log(self, row: Mapping[str, float], step: int) -> None:
        """Log the figures of an epoch, and the number of optimizer steps so far."""
        ...

    def close(self) -> None:
        """End the run."""
        ...


def open_logger(kind: LoggerKind, folder: Path | None) -> RunLogger:
    """Open a logger.

    Raises
    ------
    UsageError
        If there is no folder to log into.
    PluginError
        If the tracker is not installed.
    """
    if kind is LoggerKind.NONE:
        return _NoLogger()
    if folder is None:
        raise UsageError(f"logger '{kind}' needs a folder to write to.", "Give train() a checkpoint_dir.")
    loggers: dict[LoggerKind, Callable[[Path], RunLogger]] = {
        LoggerKind.CSV: _CsvLogger,
        LoggerKind.TENSORBOARD: _TensorBoardLogger,
        LoggerKind.MLFLOW: _open_mlflow,
    }
    try:
        return loggers[kind](folder)
    except ModuleNotFoundError as error:
        raise PluginError(
            f"logger '{kind}' is not installed: {error}.", f"Install it: python -m pip install {kind}"
        ) from error


class _NoLogger:
    def log(self, row: Mapping[str, float], step: int) -> None:
        pass

    def close(self) -> None:
        pass


class _CsvLogger:
    """Writes ``csv/metrics.csv``, a row per epoch; a resumed training continues after its checkpoint."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "csv" / "metrics.csv"
        self._names: list[str] = []  # columns of the table, once this run has written it
        self._path.parent.mkdir(parents=True, exist_ok=True)

    def log(self, row: Mapping[str, float], step: int) -> None:
        entry = {name: f"{value:.9g}" for name, value in {"step": step, **row}.items()}
        if entry.keys() <= set(self._names):
            self._append(entry)
        else:
            self._rewrite(entry, row["epoch"])

    def _rewrite(self, entry: dict[str, str], epoch: float) -> None:
        """Write the rows of earlier epochs and one more."""
        rows = [*(old for old in self._rows() if float(old["epoch"]) < epoch), entry]
        self._names = list(dict.fromkeys(name for old in rows for name in old))
        with atomic_write(self._path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self._names)
            writer.writeheader()
            writer.writerows(rows)

    def _rows(self) -> list[dict[str, str]]:
        """The complete lines of the table; a killed run may have left half a line at its end."""
        if not self._path.is_file():
            return []
        lines = self._path.read_bytes().decode("utf-8").splitlines(keepends=True)
        return list(csv.DictReader(line for line in lines if line.endswith("\n")))

    def _append(self, entry: dict[str, str]) -> None:
        size = self._path.stat().st_size
        try:
            with self._path.open("a", newline="", encoding="utf-8") as file:
                csv.DictWriter(file, self._names).writerow(entry)
        except OSError as error:
            os.truncate(self._path, size)
            if (translated := translate_write_error(error, self._path)) is None:
                raise
            raise translated from error

    def close(self) -> None:
        pass


class _TensorBoardLogger:
    """Writes event files under ``tensorboard/``."""

    def __init__(self, folder: Path) -> None:
        from tensorboard.summary import Writer

        self._writer: Any = Writer(str(folder / "tensorboard"))

    def log(self, row: Mapping[str, float], step: int) -> None:
        for name, value in row.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


def _open_mlflow(folder: Path) -> RunLogger:
    from mlflow.tracking import MlflowClient

    return _QueuedLogger("MLflow", lambda: _MlflowLogger(MlflowClient, folder))


class _MlflowLogger:
    """Logs a run of the experiment ``ptychopinn`` to ``mlflow.db``."""

    def __init__(self, connect: Callable[..., Any], folder: Path) -> None:
        self._client = connect(tracking_uri=f"sqlite:///{folder}/mlflow.db")
        name = "ptychopinn"
        experiment = self._client.get_experiment_by_name(name)
        identity = self._client.create_experiment(name) if experiment is None else experiment.experiment_id
        self._run: str = self._client.create_run(identity).info.run_id

    def log(self, row: Mapping[str, float], step: int) -> None:
        for name, value in row.items():
            self._client.log_metric(self._run, name, value, step=step)

    def close(self) -> None:
        self._client.set_terminated(self._run)


class _QueuedLogger:
    """Passes rows to a tracker in a thread, so that one that fails or does not answer holds nothing up."""

    def __init__(self, name: str, connect: Callable[[], RunLogger]) -> None:
        self._name = name
        self._rows: SimpleQueue[tuple[dict[str, float], int] | None] = SimpleQueue()
        self._answered = time.monotonic()
        self._thread = threading.Thread(target=self._pass_on, args=(connect,), name="tracker", daemon=True)
        self._thread.start()

    def log(self, row: Mapping[str, float], step: int) -> None:
        self._rows.put((dict(row), step))

    def close(self) -> None:
        self._rows.put(None)
        self._answered = time.monotonic()
        while self._thread.is_alive() and time.monotonic() < self._answered + _MAX_SILENCE_S:
            self._thread.join(0.02)
        if self._thread.is_alive():
            _log.warning(
                "%s has not answered for %g s: its history is not complete. The training is not affected.",
                self._name,
                _MAX_SILENCE_S,
            )

    def _pass_on(self, connect: Callable[[], RunLogger]) -> None:
        try:
            tracker = connect()
            while (entry := self._rows.get()) is not None:
                tracker.log(*entry)
                self._answered = time.monotonic()
            tracker.close()
        except Exception as error:  # of a database, a server, a network
            _log.warning("The history cannot be logged to %s: %s: %.500s.", self._name, type(error).__name__, error)
