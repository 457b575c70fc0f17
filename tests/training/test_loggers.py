"""Trackers get every figure of every epoch, at its step. The rest is in `backend_suite.reconstructor`."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from ptychopinn.config.execution import LoggerKind
from ptychopinn.training.loggers import open_logger

ROWS = [(4, {"epoch": 1.0, "loss": 0.5}), (8, {"epoch": 2.0, "loss": 0.25})]


def log(kind: LoggerKind, folder: Path, rows: list[tuple[int, dict[str, float]]]) -> None:
    logger = open_logger(kind, folder, "ptychopinn-none")
    for step, row in rows:
        logger.log(row, step)
    logger.close()


def test_events_of_tensorboard(tmp_path: Path) -> None:
    """Read by TensorBoard itself."""
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    log(LoggerKind.TENSORBOARD, tmp_path, ROWS)
    (path,) = (tmp_path / "tensorboard").iterdir()
    found = [
        (event.step, value.tag, value.tensor.float_val[0])
        for event in EventFileLoader(str(path)).Load()
        for value in event.summary.value
    ]
    assert found == [(step, name, value) for step, row in ROWS for name, value in row.items()]


class FakeClient:
    """The part of MLflow's client that is used."""

    def __init__(self, tracking_uri: str) -> None:
        self.uri = tracking_uri
        self.experiments: dict[str, str] = {}
        self.calls: list[tuple[Any, ...]] = []

    def get_experiment_by_name(self, name: str) -> Any:
        identity = self.experiments.get(name)
        return identity if identity is None else SimpleNamespace(experiment_id=identity)

    def create_experiment(self, name: str) -> str:
        self.experiments[name] = "7"
        return "7"

    def create_run(self, identity: str) -> Any:
        self.calls.append(("run", identity))
        return SimpleNamespace(info=SimpleNamespace(run_id=f"run of {identity}"))

    def log_metric(self, run: str, name: str, value: float, *, step: int) -> None:
        self.calls.append((run, step, name, value))

    def set_terminated(self, run: str) -> None:
        self.calls.append(("end", run))


def test_a_run_of_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of one experiment in the run directory; another training is another run of it."""
    clients: dict[str, FakeClient] = {}
    tracking = ModuleType("mlflow.tracking")
    tracking.MlflowClient = lambda tracking_uri: clients.setdefault(  # type: ignore[attr-defined]
        tracking_uri, FakeClient(tracking_uri)
    )
    monkeypatch.setitem(sys.modules, "mlflow", ModuleType("mlflow"))
    monkeypatch.setitem(sys.modules, "mlflow.tracking", tracking)
    for _ in range(2):
        log(LoggerKind.MLFLOW, tmp_path, ROWS)
    ((uri, client),) = clients.items()
    assert uri == f"sqlite:///{tmp_path}/mlflow.db"
    assert client.experiments == {"ptychopinn": "7"}
    figures = [("run of 7", step, name, value) for step, row in ROWS for name, value in row.items()]
    assert client.calls == 2 * [("run", "7"), *figures, ("end", "run of 7")]
