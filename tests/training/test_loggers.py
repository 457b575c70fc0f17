"""Trackers get every figure of every epoch, at its step. The rest is in `backend_suite.reconstructor`."""

from __future__ import annotations

import csv
import errno
import signal
import sys
import threading
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from ptychopinn.config.execution import LoggerKind
from ptychopinn.errors import ResourceError
from ptychopinn.training import loggers
from ptychopinn.training.loggers import open_logger

ROWS = [(4, {"epoch": 1.0, "loss": 0.5}), (8, {"epoch": 2.0, "loss": 0.25})]


def log(kind: LoggerKind, folder: Path, rows: list[tuple[int, dict[str, float]]]) -> None:
    logger = open_logger(kind, folder)
    for step, row in rows:
        logger.log(row, step)
    logger.close()


def test_a_table_is_whole_or_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """[HARD-010]"""
    log(LoggerKind.CSV, tmp_path, ROWS[:1])
    before = (tmp_path / "csv" / "metrics.csv").read_text()
    assert before.splitlines() == ["step,epoch,loss", "4,1,0.5"]

    def full(writer: Any, rows: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(csv.DictWriter, "writerows", full)
        with pytest.raises(ResourceError, match=r"metrics\.csv"):
            log(LoggerKind.CSV, tmp_path, ROWS[1:])
    assert [path.read_text() for path in (tmp_path / "csv").iterdir()] == [before]
    log(LoggerKind.CSV, tmp_path, ROWS[1:])
    assert (tmp_path / "csv" / "metrics.csv").read_text().splitlines()[1:] == ["4,1,0.5", "8,2,0.25"]


def test_a_table_grows_by_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """[TRAIN-013] It is written anew at the start and where there is a new figure; else a line is added."""
    written: list[Path] = []
    original = loggers.atomic_write
    monkeypatch.setattr(loggers, "atomic_write", lambda path: written.append(path) or original(path))
    logger = open_logger(LoggerKind.CSV, tmp_path)
    table = tmp_path / "csv" / "metrics.csv"
    for epoch in range(1, 200):
        extra = {"validation_loss": 0.5} if epoch in {100, 150} else {}
        logger.log({"epoch": float(epoch), "loss": 1 / epoch, **extra}, 2 * epoch)
        assert len(table.read_bytes().splitlines()) == epoch + 1  # a reader sees it at once
    assert len(written) == 2
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["step"], r["epoch"]) for r in rows] == [(str(2 * epoch), str(epoch)) for epoch in range(1, 200)]
    assert [r["epoch"] for r in rows if r["validation_loss"]] == ["100", "150"]


@pytest.mark.parametrize("half", ["1", "12,3", "12,3,0.", "12,3,0.125\r", '"12,3'])
def test_a_half_written_line_is_dropped(tmp_path: Path, half: str) -> None:
    """[TRAIN-013] A killed run left it; the resumed one goes on behind the epoch of its checkpoint."""
    log(LoggerKind.CSV, tmp_path, ROWS)
    table = tmp_path / "csv" / "metrics.csv"
    with table.open("a", newline="") as file:
        file.write(half)
    log(LoggerKind.CSV, tmp_path, [(8, {"epoch": 2.0, "loss": 0.2}), (12, {"epoch": 3.0, "loss": 0.125})])
    assert table.read_text().splitlines() == ["step,epoch,loss", "4,1,0.5", "8,2,0.2", "12,3,0.125"]


def test_a_line_that_does_not_fit_leaves_the_table(tmp_path: Path) -> None:
    """[HARD-010] [HARD-012]"""
    logger = open_logger(LoggerKind.CSV, tmp_path)
    logger.log(ROWS[0][1], ROWS[0][0])
    before = (tmp_path / "csv" / "metrics.csv").read_bytes()
    resource = pytest.importorskip("resource", reason="this system has no limits of processes")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 3, limits[1]))
    try:
        with pytest.raises(ResourceError, match=r"metrics\.csv"):
            logger.log(ROWS[1][1], ROWS[1][0])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert (tmp_path / "csv" / "metrics.csv").read_bytes() == before


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


Clients = dict[str, FakeClient]


@pytest.fixture
def clients(monkeypatch: pytest.MonkeyPatch) -> Clients:
    """Those of an MLflow that is no server, by their address."""
    made: Clients = {}
    tracking = ModuleType("mlflow.tracking")
    tracking.MlflowClient = lambda tracking_uri: made.setdefault(  # type: ignore[attr-defined]
        tracking_uri, FakeClient(tracking_uri)
    )
    monkeypatch.setitem(sys.modules, "mlflow", ModuleType("mlflow"))
    monkeypatch.setitem(sys.modules, "mlflow.tracking", tracking)
    return made


def test_a_run_of_mlflow(tmp_path: Path, clients: Clients) -> None:
    """A run of one experiment in the run directory; another training is another run of it."""
    for _ in range(2):
        log(LoggerKind.MLFLOW, tmp_path, ROWS)
    ((uri, client),) = clients.items()
    assert uri == f"sqlite:///{tmp_path}/mlflow.db"
    assert client.experiments == {"ptychopinn": "7"}
    figures = [("run of 7", step, name, value) for step, row in ROWS for name, value in row.items()]
    assert client.calls == 2 * [("run", "7"), *figures, ("end", "run of 7")]


@pytest.mark.slow
def test_a_tracker_that_does_not_answer_holds_nothing_up(
    tmp_path: Path, clients: Clients, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """[RUN-008] [TRAIN-013] Nor does one that fails; a slow one is waited for."""
    monkeypatch.setattr(loggers, "_MAX_SILENCE_S", 2.0)
    answers = threading.Event()

    def wait(self: FakeClient, *args: Any, **kwargs: Any) -> None:
        self.calls.append(args)
        assert answers.wait(20)

    with monkeypatch.context() as patched:
        patched.setattr(FakeClient, "log_metric", wait)
        began = time.monotonic()
        log(LoggerKind.MLFLOW, tmp_path / "silent", ROWS)
        assert 2.0 < time.monotonic() - began < 15
        answers.set()
    assert caplog.messages == [
        "MLflow has not answered for 2 s: its history is not complete. The training is not affected."
    ]
    slow = FakeClient.log_metric
    monkeypatch.setattr(
        FakeClient, "log_metric", lambda self, *args, **kwargs: time.sleep(0.1) or slow(self, *args, **kwargs)
    )
    log(LoggerKind.MLFLOW, tmp_path / "slow", 6 * ROWS)
    assert clients[f"sqlite:///{tmp_path}/slow/mlflow.db"].calls[-1] == ("end", "run of 7")

    def fail(self: FakeClient, identity: str) -> Any:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(FakeClient, "create_run", fail)
    log(LoggerKind.MLFLOW, tmp_path / "failing", ROWS)
    assert caplog.messages[1:] == ["The history cannot be logged to MLflow: ConnectionError: no route to host."]
