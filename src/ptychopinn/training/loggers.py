"""Where a training's history goes besides the run directory; trackers are imported only when asked for."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from ptychopinn.config.execution import LoggerKind
from ptychopinn.errors import PluginError, UsageError


class RunLogger(Protocol):
    """Takes the figures of one epoch after another."""

    def log(self, row: Mapping[str, float], step: int) -> None:
        """Enter an epoch's figures, with the optimizer steps done so far."""
        ...

    def close(self) -> None:
        """End the run."""
        ...


def open_logger(kind: LoggerKind, folder: Path | None, distribution: str) -> RunLogger:
    """The logger for an option.

    Parameters
    ----------
    kind:
        Which.
    folder:
        The run directory, or None.
    distribution:
        Whose extras bring the trackers: ``ptychopinn-torch``.

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
        LoggerKind.MLFLOW: _MlflowLogger,
    }
    try:
        return loggers[kind](folder)
    except ModuleNotFoundError as error:
        raise PluginError(
            f"logger '{kind}' is not installed: {error}.", f"python -m pip install '{distribution}[{kind}]'"
        ) from error


class _NoLogger:
    def log(self, row: Mapping[str, float], step: int) -> None:
        pass

    def close(self) -> None:
        pass


class _CsvLogger:
    """``csv/metrics.csv``, a row an epoch; a resumed training goes on where its checkpoint stands."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "csv" / "metrics.csv"
        self._rows: list[dict[str, str]] = []
        if self._path.is_file():
            with self._path.open(newline="", encoding="utf-8") as file:
                self._rows = list(csv.DictReader(file))
        self._path.parent.mkdir(parents=True, exist_ok=True)

    def log(self, row: Mapping[str, float], step: int) -> None:
        before = [old for old in self._rows if float(old["epoch"]) < row["epoch"]]
        self._rows = [*before, {name: f"{value:.9g}" for name, value in {"step": step, **row}.items()}]
        names = dict.fromkeys(name for old in self._rows for name in old)
        with self._path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(self._rows)

    def close(self) -> None:
        pass


class _TensorBoardLogger:
    """Event files under ``tensorboard/``."""

    def __init__(self, folder: Path) -> None:
        from tensorboard.summary import Writer

        self._writer: Any = Writer(str(folder / "tensorboard"))

    def log(self, row: Mapping[str, float], step: int) -> None:
        for name, value in row.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class _MlflowLogger:
    """A run of the experiment ``ptychopinn`` in ``mlflow.db``."""

    def __init__(self, folder: Path) -> None:
        from mlflow.tracking import MlflowClient

        self._client: Any = MlflowClient(tracking_uri=f"sqlite:///{folder}/mlflow.db")
        name = "ptychopinn"
        experiment = self._client.get_experiment_by_name(name)
        identity = self._client.create_experiment(name) if experiment is None else experiment.experiment_id
        self._run: str = self._client.create_run(identity).info.run_id

    def log(self, row: Mapping[str, float], step: int) -> None:
        for name, value in row.items():
            self._client.log_metric(self._run, name, value, step=step)

    def close(self) -> None:
        self._client.set_terminated(self._run)
