"""Trainings of two processes over gloo: whatever happens in one of them, none waits for ever.

Requirements: specs/10-training.md.
"""

from __future__ import annotations

import os
import signal
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

pytest.importorskip("ptychopinn_torch", reason="the torch backend is not installed")

from backend_suite.fits import TINY_MODEL, TINY_TRAIN
from hardening.kit.rank import HERE, channel_of
from torch.distributed import TCPStore
from torch_fits import FITS

from ptychopinn.config import SimulationConfig
from ptychopinn.errors import ResourceError, TrainingError
from ptychopinn.jobs.memory import descendants
from ptychopinn.monitor import Monitor, Progress
from ptychopinn.reconstructor import TrainingInterrupted, TrainStatus
from ptychopinn.simulate import simulate_scan
from ptychopinn.training.objective import Objective
from ptychopinn.training.ranks import Ranks
from ptychopinn.workflows import folders, run_settings, train_run
from ptychopinn_torch import reconstructor

pytestmark = pytest.mark.xdist_group("ranks")
LIMIT_S = 180.0  # of a branch, which takes a second on a quiet core; a process that hangs would take ten times as long
REPEATS = {False: 1, True: 200}  # short, long
SCAN = simulate_scan(SimulationConfig(N=32, rows=5, cols=5, seed=1))
# Batches of 5 and of 2 groups; the last step of an epoch has one batch, and two have none to spare.
TRAIN: dict[str, Any] = {"nepochs": 3, "n_groups": 17, "batch_size": 5, "probe_trainable": True}
Train = Callable[..., Any]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every branch, many times in the long form."""
    count = REPEATS[bool(metafunc.config.getoption("--long", default=False))]
    if "turn" in metafunc.fixturenames:
        metafunc.parametrize("turn", range(count), scope="module")  # one round after another


class Pair:
    """This process and a second one, for many trainings."""

    def __init__(self) -> None:
        store = TCPStore(HERE, 0, 2, is_master=True, wait_for_workers=False)
        command = [sys.executable, "-m", "hardening.kit.rank", str(store.port)]
        paths = [str(Path(__file__).parents[1]), *sys.path]
        self.process = subprocess.Popen(command, env={"PYTHONPATH": ":".join(paths), "OMP_NUM_THREADS": "1"})
        self.channel = channel_of(0, lambda: store)

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
def train(monkeypatch: pytest.MonkeyPatch) -> Iterator[Train]:
    """Trains in two processes; a branch that takes too long loses the second one, and fails."""
    if not PAIRS:
        PAIRS.append(Pair())
    pair = PAIRS[0]

    def run(fault: str = "", settings: dict[str, Any] | None = None, **more: Any) -> Any:
        with monkeypatch.context() as patch:
            patch.setattr(reconstructor, "open_ranks", lambda options, device: pair.ranks(fault))
            return FITS.fit_to(SCAN, train={**TRAIN, **(settings or {})}, **more)

    pair.channel.connect()
    limit = Timer(LIMIT_S, pair.process.kill)
    limit.start()
    yield run
    limit.cancel()
    if pair.process.poll() is not None:
        pair.close()
        PAIRS.clear()


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
def test_two_processes_train_as_one(train: Train, turn: int, settings: dict[str, Any], model: dict[str, Any]) -> None:
    """[TRAIN-018] Same steps, same losses, same weights, also where one process has nothing to do."""
    two = train(settings=settings, model=model)
    one = FITS.fit_to(SCAN, train={**TRAIN, **settings}, model=model)
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
    original, calls = Objective.__call__, 0

    def interrupted(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 6:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(Objective, "__call__", interrupted)
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


def test_checkpoints_resume(train: Train, turn: int, tmp_path: Path) -> None:
    """[TRAIN-021] A training of two goes on as one that was never interrupted, and also as one process."""
    settings = {**TRAIN, "checkpoint_every": 1, "scheduler": "constant"}
    whole = train(settings=settings)
    for folder in (tmp_path / "two", tmp_path / "one"):
        train(settings={**settings, "nepochs": 2}, checkpoint_dir=folder)
        if folder.name == "two":
            resumed = train(settings=settings, checkpoint_dir=folder)
        else:
            resumed = FITS.fit_to(SCAN, train=settings, checkpoint_dir=folder)
        assert resumed.result.history["epoch"] == [1, 2, 3]
        np.testing.assert_allclose(resumed.result.history["loss"], whole.result.history["loss"], rtol=1e-4)


def test_a_process_is_killed(train: Train, turn: int) -> None:
    """[TRAIN-020]"""
    start = time.monotonic()
    with pytest.raises(ResourceError, match="lost another one"):
        train("killed")
    assert time.monotonic() - start < LIMIT_S


SETTINGS = {"model": TINY_MODEL, "train": {**TINY_TRAIN, "nepochs": 2, "checkpoint_every": 1}}


def test_a_training_starts_its_processes(alone: None, scan: Path, tmp_path: Path) -> None:
    """[TRAIN-020] [TRAIN-021] [TRAIN-022] One is killed; the error says how, and the run is resumed."""

    def kill(progress: Progress) -> None:
        if progress.stage == "train" and progress.done == 6:
            started = [pid for pid in descendants(os.getpid()) if b"jobs.worker" in command_of(pid)]
            os.kill(started[-1], signal.SIGKILL)

    settings = run_settings("torch", **SETTINGS, execution={"accelerator": "cpu", "devices": 2, "threads": 1})
    with pytest.raises(ResourceError, match="Process 1 of the training ended: The process .* was killed"):
        train_run(scan, tmp_path / "two", settings, monitor=Monitor(kill))
    two = train_run(scan, tmp_path / "two", settings, resume=True)
    one = train_run(scan, tmp_path / "one", run_settings("torch", **SETTINGS, execution={"accelerator": "cpu"}))
    assert two.figures["loss"] == pytest.approx(one.figures["loss"], rel=1e-3)
    assert {path.name for path in two.folder.iterdir()} == {path.name for path in one.folder.iterdir()}


def test_torchrun_starts_the_processes(long: bool, scan: Path, tmp_path: Path) -> None:
    """[TRAIN-022] One of them has the output and the run directory."""
    if not long:
        pytest.skip("three processes that import PyTorch take as long as all other tests here; --long runs it")
    flags = ["--accelerator=cpu", "--devices=2", "--nepochs=1", "--probe-refinement=0", "--n-filters-scale=0.1"]
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "ptychopinn", "train", scan]
    ended = subprocess.run(
        [sys.executable, *map(str, command), "-o", str(tmp_path / "run"), *flags],
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_S,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("product") == 1
    assert (tmp_path / "run" / folders.MODEL).is_file()


def command_of(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()
