"""Trainings of two processes, over gloo and over TCP: whatever happens in one of them, none waits for ever.

Requirements: specs/10-training.md.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Timer
from typing import Any

import numpy as np
import pytest
from backend_suite.fits import TINY_MODEL, TINY_TRAIN, Fits
from hardening.kit.rank import BACKENDS

from ptychopinn.config import SimulationConfig
from ptychopinn.errors import ResourceError, TrainingError
from ptychopinn.jobs.memory import descendants
from ptychopinn.monitor import Monitor, Progress
from ptychopinn.reconstructor import TrainingInterrupted, TrainStatus
from ptychopinn.simulate import simulate_scan
from ptychopinn.training import MicroBatches
from ptychopinn.training.ranks import Ranks
from ptychopinn.workflows import folders, run_settings, train_run

pytestmark = pytest.mark.xdist_group("ranks")
LIMIT_S = 180.0  # of a branch, which takes seconds on a quiet core; a process that hangs would take ten times as long
REPEATS = {"torch": 200, "tf": 20}  # in the long form; TensorFlow compiles each training anew
SCAN = simulate_scan(SimulationConfig(N=32, rows=5, cols=5, seed=1))
# Batches of 5 and of 2 groups; the last step of an epoch has one batch, and two have none to spare.
TRAIN: dict[str, Any] = {"nepochs": 3, "n_groups": 17, "batch_size": 5, "probe_trainable": True}
Train = Callable[..., Any]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every branch of each backend that is installed, many times in the long form; the short one has PyTorch's."""
    long = bool(metafunc.config.getoption("--long", default=False))
    chosen = [name for name in BACKENDS if (long or name == "torch") and importlib.util.find_spec(f"ptychopinn_{name}")]
    if "turn" in metafunc.fixturenames:
        turns = [(name, turn) for name in chosen for turn in range(REPEATS[name] if long else 1)]
        metafunc.parametrize(("backend", "turn"), turns, scope="module")  # one round after another
    elif "backend" in metafunc.fixturenames:
        metafunc.parametrize("backend", chosen)


def fits_of(backend: str) -> Fits:
    """Tiny trainings of one process."""
    found: Fits = importlib.import_module(f"{backend}_fits").FITS
    return found


class Pair:
    """This process and a second one, for many trainings."""

    def __init__(self, backend: str) -> None:
        self.backend, self.kind = backend, BACKENDS[backend]
        self.kind.reconstructor()
        meeting = self.kind.first()
        command = [sys.executable, "-m", "hardening.kit.rank", backend, str(meeting.port)]
        paths = [str(Path(__file__).parents[1]), *sys.path]
        self.process = subprocess.Popen(command, env={"PYTHONPATH": ":".join(paths), "OMP_NUM_THREADS": "1"})
        self.channel = meeting.channel

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.channel.close()

    @contextmanager
    def ranks(self, fault: str) -> Iterator[Ranks]:
        """In place of what starts the processes of a training."""
        ranks = Ranks(self.channel)
        ranks.share(fault)
        try:
            yield ranks
        finally:
            ranks.end()


PAIRS: list[Pair] = []


@pytest.fixture
def train(backend: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Train]:
    """Trains in two processes; a branch that takes too long loses the second one, and fails."""
    if PAIRS and PAIRS[0].backend != backend:
        PAIRS.pop().close()
    if not PAIRS:
        PAIRS.append(Pair(backend))
    pair = PAIRS[0]

    def run(fault: str = "", settings: dict[str, Any] | None = None, **more: Any) -> Any:
        with monkeypatch.context() as patch:
            patch.setattr(f"{pair.kind.module}.open_ranks", lambda *_, **__: pair.ranks(fault))
            return fits_of(backend).fit_to(SCAN, train={**TRAIN, **(settings or {})}, **more)

    try:
        pair.channel.connect()
    except ResourceError:
        PAIRS.pop().close()  # else no later branch could start
        raise
    limit = Timer(LIMIT_S, pair.process.kill)
    limit.start()
    yield run
    limit.cancel()
    if pair.process.poll() is not None:
        pair.close()
        PAIRS.clear()


@pytest.fixture
def train_alone(backend: str) -> Train:
    """Trains in this process."""

    def run(settings: dict[str, Any], **more: Any) -> Any:
        return fits_of(backend).fit_to(SCAN, train={**TRAIN, **settings}, **more)

    return run


@pytest.fixture
def alone() -> None:
    """This process is connected to no other one."""
    while PAIRS:
        PAIRS.pop().close()


@pytest.fixture(scope="module", autouse=True)
def _last() -> Iterator[None]:
    yield
    while PAIRS:
        PAIRS.pop().close()


@pytest.mark.parametrize(
    ("settings", "model"),
    [
        ({"validation_fraction": 0.3}, {}),
        ({"accumulate_grad_batches": 2, "batch_size": 3}, {"object_big": False}),
        ({"batch_size": 1, "nepochs": 1}, {}),
        ({"simulate_objects": "mixed", "simulate_probes": "family", "batch_size": 1, "nepochs": 1}, {}),
    ],
    ids=["validated", "accumulated", "one group", "simulated"],
)
def test_two_processes_train_as_one(
    train: Train, train_alone: Train, turn: int, settings: dict[str, Any], model: dict[str, Any]
) -> None:
    """[TRAIN-018] Same steps, same losses, same weights, also where one process has nothing to do."""
    two = train(settings=settings, model=model)
    one = train_alone(settings, model=model)
    assert two.result.patterns_seen == one.result.patterns_seen
    for name in set(one.result.history) - {"seconds"}:
        np.testing.assert_allclose(two.result.history[name], one.result.history[name], rtol=1e-4, err_msg=name)
    for name, array in one.arrays().items():
        np.testing.assert_allclose(two.arrays()[name], array, atol=2e-3, err_msg=name)


def test_time_is_up(train: Train, turn: int) -> None:
    """[TRAIN-019]"""
    result = train(settings={"nepochs": None, "max_time": 0.3}).result
    assert result.status is TrainStatus.TIMED_OUT


def test_the_first_process_is_cancelled(train: Train, turn: int) -> None:
    """[TRAIN-019]"""
    monitor = Monitor(lambda progress: monitor.cancel() if progress.done == 6 else None)
    trained = train(monitor=monitor)
    assert trained.result.status is TrainStatus.CANCELLED
    assert trained.result.history["epoch"] == [1, 2]


def test_another_process_is_asked_to_stop(train: Train, turn: int) -> None:
    """[TRAIN-019] By a signal, for example: the first one ends the training after this step, with a model."""
    trained = train("asked")
    assert trained.result.status is TrainStatus.CANCELLED
    assert trained.result.patterns_seen == 4 * (5 + 5 + 5)


def test_an_interrupt_within_a_step(train: Train, turn: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """[TRAIN-019]"""
    original, calls = MicroBatches.compute, 0

    def interrupted(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 6:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(MicroBatches, "compute", interrupted)
    with pytest.raises(TrainingInterrupted) as caught:
        train()
    assert caught.value.result.history["epoch"] == [1]


def test_a_loss_that_is_not_finite(train: Train, turn: int) -> None:
    """[TRAIN-019] [TRAIN-006] Of one process: the weights of both stay as they were."""
    with pytest.raises(TrainingError, match="The loss is nan at step 2 of epoch 0"):
        train("nan")


def test_it_stops_early(train: Train, turn: int) -> None:
    """[TRAIN-019]"""
    settings = {"nepochs": 50, "early_stopping_patience": 1, "checkpoint_monitor": "seconds"}
    assert train(settings=settings).result.status is TrainStatus.STOPPED_EARLY


def test_a_batch_does_not_fit_in_one_process(train: Train, turn: int) -> None:
    """[TRAIN-020] It cuts its own share."""
    cut, whole = train("small", {"nepochs": 1}), train(settings={"nepochs": 1})
    assert cut.result.history["loss"] == pytest.approx(whole.result.history["loss"], rel=1e-4)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("full", "Process 1 of the training failed: Memory does not suffice"),
        ("defect", "Process 1 of the training failed: .*ValueError: a defect"),
        ("unread", "Process 1 of the training failed: the disk is gone"),
    ],
)
def test_a_process_fails(train: Train, turn: int, fault: str, words: str) -> None:
    """[TRAIN-020] Both end, and the first one says why."""
    with pytest.raises(ResourceError, match=words):
        train(fault)


def test_checkpoints_resume(train: Train, train_alone: Train, turn: int, tmp_path: Path) -> None:
    """[TRAIN-021] A training of two goes on as one that was never interrupted, and also as one process."""
    settings = {**TRAIN, "checkpoint_every": 1, "scheduler": "constant"}
    whole = train(settings=settings)
    for folder in (tmp_path / "two", tmp_path / "one"):
        train(settings={**settings, "nepochs": 2}, checkpoint_dir=folder)
        if folder.name == "two":
            resumed = train(settings=settings, checkpoint_dir=folder)
        else:
            resumed = train_alone(settings, checkpoint_dir=folder)
        assert resumed.result.history["epoch"] == [1, 2, 3]
        np.testing.assert_allclose(resumed.result.history["loss"], whole.result.history["loss"], rtol=1e-4)


def test_a_process_is_killed(train: Train, turn: int) -> None:
    """[TRAIN-020]"""
    start = time.monotonic()
    with pytest.raises(ResourceError, match="lost another one"):
        train("killed")
    assert time.monotonic() - start < LIMIT_S


SETTINGS = {"model": TINY_MODEL, "train": {**TINY_TRAIN, "nepochs": 2, "checkpoint_every": 1}}


def test_a_training_starts_its_processes(backend: str, alone: None, scan: Path, tmp_path: Path) -> None:
    """[TRAIN-020] [TRAIN-021] [TRAIN-022] One is killed; the error says how, and the run is resumed."""

    def kill(progress: Progress) -> None:
        if progress.stage == "train" and progress.done == 6:
            started = [pid for pid in descendants(os.getpid()) if b"jobs.worker" in command_of(pid)]
            os.kill(started[-1], signal.SIGKILL)

    settings = run_settings(backend, **SETTINGS, execution={"accelerator": "cpu", "devices": 2})
    with pytest.raises(ResourceError, match="Process 1 of the training ended: The process .* was killed"):
        train_run(scan, tmp_path / "two", settings, monitor=Monitor(kill))
    two = train_run(scan, tmp_path / "two", settings, resume=True)
    one = train_run(scan, tmp_path / "one", run_settings(backend, **SETTINGS, execution={"accelerator": "cpu"}))
    assert two.figures["loss"] == pytest.approx(one.figures["loss"], rel=1e-3)
    assert {path.name for path in two.folder.iterdir()} == {path.name for path in one.folder.iterdir()}


def test_a_launcher_starts_the_processes(long: bool, backend: str, scan: Path, tmp_path: Path) -> None:
    """[TRAIN-022] torchrun, or TF_CONFIG; one of the processes has the output and the run directory."""
    if not long:
        pytest.skip("processes that import PyTorch take as long as all other tests here; --long runs it")
    flags = ["--accelerator=cpu", "--devices=2", "--nepochs=1", "--probe-refinement=0", "--n-filters-scale=0.1"]
    command = ["-m", "ptychopinn", "train", str(scan), "-o", str(tmp_path / "run"), f"--backend={backend}", *flags]
    if backend == "torch":
        command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", *command]
        ended = [launch(command, {})]
    else:
        with socket.create_server(("127.0.0.1", 0)) as server:
            address = f"127.0.0.1:{server.getsockname()[1]}"
        cluster = {"worker": [address, "127.0.0.1:1"]}
        tasks = [{"type": "worker", "index": index} for index in range(2)]
        ended = [launch(command, {"TF_CONFIG": json.dumps({"cluster": cluster, "task": task})}) for task in tasks]
    outputs = [process.communicate(timeout=LIMIT_S) for process in ended]
    assert [process.returncode for process in ended] == [0] * len(ended), outputs
    assert "".join(out for out, _ in outputs).count("product") == 1
    assert (tmp_path / "run" / folders.MODEL).is_file()


def launch(command: list[str], variables: dict[str, str]) -> subprocess.Popen[str]:
    environment = {**os.environ, **variables}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, *command], env=environment, text=True, **pipes)


def command_of(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()
