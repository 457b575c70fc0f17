"""Many trainings and inferences in one process, and streams of bad producers: specs/21-running.md."""

from __future__ import annotations

import gc
import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ptychopinn.config import ModelConfig, SimulationConfig, TrainConfig
from ptychopinn.data.dataset import Measurement, ScanDataset
from ptychopinn.data.io import write_scan
from ptychopinn.live import Arrival, Chunk, StreamStatus, listen, stream
from ptychopinn.live.messages import pack_end, pack_patterns, pack_setup
from ptychopinn.plugins import GROUP, discover
from ptychopinn.simulate import simulate_scan
from ptychopinn.workflows import infer_run, run_settings, train_run

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/fd").is_dir(), reason="this system does not list what a process holds"
)
BACKENDS = {"numpy": "numpy_backend", "torch": "ptychopinn_torch.plugin"}
RUNS = {"numpy": (12, 5000), "torch": (0, 320)}  # trainings, and as many inferences: short, long
MESSAGES = (400, 40_000)  # short, long
MAX_LIFE = 133  # messages that a producer sends before it dies
SAMPLES = 20
MAX_KIB_A_RUN = 4.0


def count_resources() -> dict[str, int]:
    """What this process holds: open files, threads, handlers of the log, memory in KiB."""
    gc.collect()
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    return {
        "files": len(list(Path("/proc/self/fd").iterdir())),
        "threads": int(next(line.split()[1] for line in lines if line.startswith("Threads:"))),
        "handlers": len(logging.getLogger("ptychopinn").handlers),
        "KiB": int(next(line.split()[1] for line in lines if line.startswith("RssAnon:"))),
    }


def growth(work: Callable[[], object], count: int) -> tuple[dict[str, float], str]:
    """How much of each is held more for each call, and in words.

    It is fitted to the second half of the calls, because until then the allocator and the caches of libraries grow:
    about 8 MiB in the first 60 calls. Memory with pictures goes up and down by 20 MiB, so its largest values count.
    """
    for _ in range(4):
        work()
    samples, numbers = [count_resources()], [0]
    for number in range(1, count + 1):
        work()
        if number % max(count // SAMPLES, 1) == 0:
            samples.append(count_resources())
            numbers.append(number)
            print(f"{number} of {count}: {samples[-1]}", flush=True)  # `-s` shows how far a long form is
    half = len(samples) // 2
    slopes = {what: float(np.polyfit(numbers[half:], [s[what] for s in samples[half:]], 1)[0]) for what in samples[0]}
    first, second = (max(sample["KiB"] for sample in part) for part in (samples[:half], samples[half:]))
    slopes["KiB"] = (second - first) / max(count / 2, 1)
    return slopes, f"{samples[0]} before, {samples[-1]} after, {slopes['KiB']:.2f} KiB each"


def check_growth(slopes: dict[str, float], count: int) -> None:
    """Nothing is held more for each call; the allocator's pages may vary by some MiB in all."""
    for what in ("files", "threads", "handlers"):
        assert slopes[what] * count < 1, what
    assert slopes["KiB"] < max(MAX_KIB_A_RUN, 8192 / count)


@pytest.mark.parametrize("backend", BACKENDS)
def test_repeated_runs_hold_nothing(
    backend: str, long: bool, figure: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[RUN-040]"""
    if not (count := RUNS[backend][long]):
        pytest.skip("in the long form only")
    pytest.importorskip(BACKENDS[backend], reason="the backend is not installed")
    registry = discover(found=[EntryPoint(backend, BACKENDS[backend], GROUP)])
    for module in ("_train", "_backends"):
        monkeypatch.setattr(f"ptychopinn.workflows.{module}.discover", lambda: registry)
    if backend == "numpy":  # pictures take two thirds of the time
        monkeypatch.setattr("ptychopinn.workflows._outputs.write_pictures", lambda *args, **kwargs: {})
        monkeypatch.setattr("ptychopinn.workflows._outputs.bare_picture", lambda *args, **kwargs: b"")
    monkeypatch.setattr(logging.getLogger("ptychopinn"), "propagate", False)  # pytest holds every record of a test
    write_scan(tmp_path / "scan.npz", simulate_scan(SimulationConfig(N=32, rows=4, cols=4)))
    model: dict[str, Any] = {"n_filters_scale": 0.125} if backend == "torch" else {}
    settings = run_settings(backend, train={"nepochs": 1, "probe_refinement": 0}, model=model)

    def both() -> None:
        train_run(tmp_path / "scan.npz", tmp_path / "run", settings, overwrite=True)
        infer_run(tmp_path / "run", tmp_path / "scan.npz", tmp_path / "out", overwrite=True)

    slopes, words = growth(both, count)
    figure(f"{count} trainings and inferences in one process, {backend}: {words}")
    check_growth(slopes, count)


class BadProducer(threading.Thread):
    """Sends every pattern of a scan once, and many messages that are repeated, damaged or wrong; dies now and then.

    Parameters
    ----------
    seconds:
        Over how long it spreads its messages; after a death it is silent for some, and then sends what it missed at
        once. 0 is as fast as it can.
    """

    def __init__(self, address: str, scan: ScanDataset, messages: int, seconds: float) -> None:
        super().__init__(daemon=True)
        self._pause_s = seconds / messages
        self._address, self._scan, self._rng = address, scan, random.Random(messages)
        when = [0, *sorted(self._rng.sample(range(1, messages), len(scan) - 1))]
        self._rows, self._messages = dict(zip(when, range(len(scan)), strict=True)), messages
        self._sent = self._received = 0

    def run(self) -> None:
        """Send it all."""
        import zmq

        began = time.monotonic()

        def wait_until_due(number: int) -> None:
            time.sleep(max(began + number * self._pause_s - time.monotonic(), 0.0))

        with zmq.Context() as context:
            number = 0
            while number < self._messages:  # a life
                end = min(number + self._rng.randint(1, MAX_LIFE), self._messages)
                with context.socket(zmq.PUSH) as socket:
                    socket.connect(self._address)
                    for due in range(number, end):
                        wait_until_due(due)
                        row = self._rows.get(due)
                        socket.send_multipart(self._lie() if row is None else self._pattern(row))
                    number = end
                    while self._received < number:  # the next life has a queue of its own, which might be read first
                        time.sleep(0.001)
                    if number == self._messages:
                        socket.send_multipart(pack_end())
                        socket.close(5000)
                if number < self._messages:
                    wait_until_due(number + self._rng.randint(0, 2 * MAX_LIFE))

    def count(self, arrivals: Iterator[Arrival]) -> Iterator[Arrival]:
        """Count what was received."""
        for arrival in arrivals:
            self._received += arrival is not None
            yield arrival

    def _pattern(self, row: int) -> list[bytes]:
        self._sent = max(self._sent, row)
        return pack_patterns(np.array([row]), self._scan.positions[[row]], self._scan.counts(slice(row, row + 1)))

    def _lie(self) -> list[bytes]:
        rng, row, there = self._rng, np.array([5]), self._scan.positions[[0]]
        pattern = self._scan.counts(slice(0, 1))
        again = self._pattern(rng.randint(0, self._sent))
        lies: list[Callable[[], list[bytes]]] = [
            lambda: again,
            lambda: pack_patterns(row + 1000, there * np.nan, pattern),
            lambda: pack_patterns(row + 1000, there + 1e6, pattern),
            lambda: pack_patterns(-1 - row, there, pattern),
            lambda: pack_patterns(row + 1000, there, pattern + np.inf),
            lambda: pack_patterns(row + 1000, there, -1.0 - pattern),
            lambda: pack_patterns(row + 1000, there, pattern[:, :-2]),
            lambda: pack_patterns(row + 1000, there, pattern, "amplitude"),
            lambda: pack_setup(np.zeros((1, 32, 32), np.complex64)),
            lambda: pack_setup(None, np.ones((16, 16), bool), {"nphotons": -4}),
            lambda: [rng.randbytes(rng.randrange(40)) for _ in range(rng.randrange(1, 5))],
            lambda: [part[: rng.randrange(len(part))] for part in again],
        ]
        return rng.choice(lies)()


def test_a_producer_that_dies_repeats_and_lies(
    long: bool, figure: Callable[[str], None], tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    """[STREAM-003] [STREAM-004] [STREAM-012] [RUN-040] The object is that of the good patterns, and nothing is held."""
    pytest.importorskip("zmq", reason="pyzmq is not installed")
    numpy_backend = pytest.importorskip("numpy_backend")
    scan = simulate_scan(SimulationConfig(N=32, rows=6, cols=6, seed=1))
    model = numpy_backend.NumpyReconstructor(ModelConfig(N=32))
    model.train(scan, TrainConfig(nepochs=1))
    address, messages = f"ipc://{tmp_path}/socket", MESSAGES[long]
    seconds = 60 * pytestconfig.getoption("--stream-minutes", default=0.0)

    def streamed() -> Iterator[Any]:
        arrivals = listen(address, bind=True)
        producer = BadProducer(address, scan, messages, seconds)
        producer.start()
        # Lies do not count for the timeout, and good patterns may come at any time.
        yield from stream(model, producer.count(arrivals), timeout_s=60 + seconds, update_s=0.2)
        producer.join(10)

    before = count_resources()
    *_, final = streamed()
    after = count_resources()
    assert (final.ending, final.patterns) == (StreamStatus.FINISHED, len(scan))
    assert final.refused + final.repeated == messages - len(scan)
    good = Chunk(np.arange(len(scan)), scan.positions, scan.counts(slice(None)), Measurement.COUNTS)
    *_, plain = stream(model, [good])
    difference = np.linalg.norm(final.result.object - plain.result.object)
    assert difference < 0.01 * np.linalg.norm(plain.result.object)
    assert (after["files"], after["threads"]) == (before["files"], before["threads"])
    assert after["KiB"] <= before["KiB"] + 16 * 1024
    figure(
        f"a producer that dies, repeats and lies for {seconds / 60:g} minutes: {messages} messages, "
        f"{final.refused} refused, {final.repeated} repeated, the object that of the {len(scan)} good patterns; "
        f"{before} before, {after} after"
    )
