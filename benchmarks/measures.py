"""What `speed.py` measures: each function runs in a process of its own and returns one figure with its facts."""

from __future__ import annotations

import importlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from tiled_scans import field_of, tiled_positions

from ptychopinn.config import InferConfig, ModelConfig, TrainConfig
from ptychopinn.config.build import build
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.grouping import default_group_count, draw_groups, neighbour_table
from ptychopinn.data.io import read_scan
from ptychopinn.data.patterns import Patterns
from ptychopinn.data.scaling import fit_scaling, probe_in_counts
from ptychopinn.monitor import NULL_MONITOR, Monitor
from ptychopinn.plugins import discover
from ptychopinn.reconstruction import reconstruct
from ptychopinn.reconstructor import PatchBatch, Prediction
from ptychopinn.simulate import true_patches
from ptychopinn.solvers import epie
from ptychopinn.solvers.epie import CACHE_BYTES

Facts = dict[str, Any]
_BATCH = 64


def status(key: str) -> float:
    """A memory figure of this process in MiB, as the kernel counts it; NaN where it does not tell."""
    path = Path("/proc/self/status")
    lines = path.read_text().splitlines() if path.is_file() else []
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{key}:")), float("nan"))


@contextmanager
def watched(every_s: float = 0.02) -> Iterator[Facts]:
    """Peaks of resident and of anonymous memory over the block (sampled), MiB."""
    peaks = {"peak_anonymous_mib": status("RssAnon"), "peak_resident_mib": status("VmRSS")}
    done = threading.Event()

    def look() -> None:
        while not done.wait(every_s):
            for key, name in (("peak_anonymous_mib", "RssAnon"), ("peak_resident_mib", "VmRSS")):
                peaks[key] = max(peaks[key], status(name))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield peaks
    finally:
        done.set()
        thread.join()


def rate(work: Callable[[], int], seconds: float, scale: float = 1.0, unit: str = "patterns/s") -> Facts:
    """Units a second (over ``scale``) and CPU time a unit of the quickest of repeated calls, after one not counted."""
    work()
    best, cpu, calls, end = 0.0, float("inf"), 0, time.perf_counter() + seconds
    while calls < 2 or time.perf_counter() < end:
        start, spent = time.perf_counter(), time.process_time()
        done = work()
        best = max(best, done / (time.perf_counter() - start))
        cpu = min(cpu, (time.process_time() - spent) / done)
        calls += 1
    return {"value": best / scale, "unit": unit, "cpu_us": 1e6 * cpu, "calls": calls}


def matrix_product(seconds: float, **_: Any) -> Facts:
    """The ceiling of arithmetic: float32, 2048 x 2048, NumPy."""
    a = np.random.default_rng(0).random((2048, 2048), np.float32)
    return rate(lambda: 2 * len(a @ a) ** 3, seconds, 1e9, "GFLOP/s")


def memory_copy(seconds: float, **_: Any) -> Facts:
    """The ceiling of memory: 256 MiB copied, read and written bytes."""
    a = np.ones(1 << 26, np.float32)
    b = np.empty_like(a)

    def copy() -> int:
        np.copyto(b, a)
        return 2 * a.nbytes

    return rate(copy, seconds, 1e9, "GB/s")


def device_product(seconds: float, precision: str = "fp32", **_: Any) -> Facts:
    """The ceiling of a CUDA device: 8192 x 8192, in float32 or bfloat16, torch."""
    torch = importlib.import_module("torch")
    a = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16 if precision == "bf16" else torch.float32)

    def multiply() -> int:
        for _ in range(8):
            a @ a
        torch.cuda.synchronize()
        return 8 * 2 * 8192**3

    return rate(multiply, seconds, 1e9, "GFLOP/s") | {"device": torch.cuda.get_device_name()}


def import_time(backend: str | None = None, **_: Any) -> Facts:
    """Seconds to import the core, or a backend's class, over that of a bare interpreter; the quickest of three."""
    target = "import ptychopinn.workflows"
    if backend is not None:
        target = f"import {discover().get(backend).import_string.partition(':')[0]}"

    def once(code: str) -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        return time.perf_counter() - start

    bare, numpy, it = (min(once(code) for _ in range(3)) for code in ("pass", "import numpy", target))
    return {"value": it - bare, "unit": "s", "of_numpy": (it - bare) / (numpy - bare)}


def epie_pass(size: int, patterns: int, seconds: float, **_: Any) -> Facts:
    """Passes of ePIE, with the momentum of `ptychopinn.solvers.epie`, over a scan in memory, probe known."""
    field = field_of(size, patterns)
    probe = probe_in_counts(field, fit_scaling(field), follow_offset=False)

    def run() -> int:
        epie(Patterns(field, host_budget_bytes=CACHE_BYTES), probe, passes=2)
        return 2 * len(field)

    return rate(run, seconds)


def grouping(size: int, patterns: int, seconds: float, **_: Any) -> Facts:
    """Table of neighbours, and an epoch's groups of 8."""
    field = field_of(size, min(patterns, 2025))
    positions = tiled_positions(field, patterns)
    data = ScanDataset(np.broadcast_to(np.uint16(1), (patterns, size, size)), field.measurement, positions, field.probe)

    def run() -> int:
        table = neighbour_table(data, 8)
        draw_groups(table, 8, default_group_count(patterns, 8), np.random.default_rng(0))
        return patterns

    return rate(run, seconds)


class _Oracle:
    """Predicts true patches of a tiled scan, each with a phase of its own and some noise; it takes no time."""

    def __init__(self, field: ScanDataset) -> None:
        self.model = ModelConfig(N=field.N)
        rng = np.random.default_rng(0)
        assert field.object_guess is not None
        patches = true_patches(field.object_guess, field.positions, field.N // 2).astype(np.complex64)
        patches *= np.exp(2j * np.pi * rng.random(len(patches))).astype(np.complex64)[:, None, None]
        noise = rng.standard_normal((2, *patches.shape), np.float32)
        self._patches, self._probe = patches * (1 + 0.05 * (noise[0] + 1j * noise[1])), field.probe

    def infer(self, data: ScanDataset, config: InferConfig, *, monitor: Monitor = NULL_MONITOR) -> Prediction:
        """Patches by number."""

        def batches() -> Iterator[PatchBatch]:
            for low in range(0, len(data), _BATCH):
                indices = np.arange(low, min(low + _BATCH, len(data)))
                yield PatchBatch(indices, self._patches[indices % len(self._patches)])

        return Prediction(self._probe, self._patches.shape[-1], batches())


def stitching(size: int, patterns: int, seconds: float, scan: str, **_: Any) -> Facts:
    """All of a reconstruction but reading and the network: placement, phases, stitching, judging."""
    oracle: Any = _Oracle(field_of(size, patterns))
    data = read_scan(scan)
    return _reconstructed(lambda: reconstruct(oracle, data, InferConfig(refine=0)), len(data), seconds)


def _reconstructed(run: Callable[[], Any], patterns: int, seconds: float) -> Facts:
    best: Facts = {"value": 0.0}
    cpu, calls, end = float("inf"), 0, time.perf_counter() + seconds
    while calls < (1 if patterns > 10_000 else 2) or time.perf_counter() < end:
        start, spent = time.perf_counter(), time.process_time()
        found = run()
        taken = time.perf_counter() - start
        cpu = min(cpu, time.process_time() - spent)
        calls += 1
        if patterns / taken > best["value"]:
            stages = {stage: 1e6 * s / patterns for stage, s in found.seconds.items()}
            best = {"value": patterns / taken, "stages_us_a_pattern": stages, "residual": found.residual}
    return best | {"unit": "patterns/s", "cpu_us": 1e6 * cpu / patterns, "calls": calls}


def _options(backend: str, device: str, precision: str) -> Any:
    options = {"accelerator": device, "precision": precision, "deterministic": False}
    return build(discover().get(backend).options, options)


def training(
    backend: str,
    device: str,
    precision: str,
    size: int,
    patterns: int,
    seconds: float,
    model: str,
    network: Facts,
    **_: Any,
) -> Facts:
    """Training on the measured patterns; start-up left out. Leaves the model for the other measures."""
    data = field_of(size, patterns)
    options = _options(backend, device, precision)
    reconstructor = discover().get(backend).load_class()(ModelConfig(N=size, **network), options)
    config = TrainConfig(max_time=4 * seconds, probe_refinement=0)  # phases of poor networks take longer to solve
    reconstructor.train(data, TrainConfig(max_time=min(seconds, 2.0), probe_refinement=0))  # to warm up
    spent = time.process_time()
    result = reconstructor.train(data, config)
    spent = time.process_time() - spent
    reconstructor.save(model)
    return {
        "value": result.patterns_seen / result.seconds,
        "unit": "patterns/s",
        "cpu_us": 1e6 * spent / result.patterns_seen,
        "epochs": len(result.history["epoch"]),
    }


def _loaded(backend: str, device: str, precision: str, model: str) -> Any:
    return discover().get(backend).load_class().load(model, _options(backend, device, precision))


def forward(
    backend: str, device: str, precision: str, size: int, patterns: int, seconds: float, model: str, **_: Any
) -> Facts:
    """Prediction of patches from patterns in memory, without placement."""
    data, reconstructor = field_of(size, patterns), _loaded(backend, device, precision, model)

    def run() -> int:
        return sum(len(batch.indices) for batch in reconstructor.infer(data, InferConfig()).batches)

    return rate(run, seconds)


def inference(
    backend: str,
    device: str,
    precision: str,
    patterns: int,
    seconds: float,
    model: str,
    scan: str,
    infer: InferConfig | None = None,
    **_: Any,
) -> Facts:
    """File to object: read and check the scan, predict, synchronise, stitch, judge; passes if ``infer`` says so."""
    reconstructor = _loaded(backend, device, precision, model)

    def run() -> Any:
        start = time.perf_counter()
        data = read_scan(scan)
        reading = time.perf_counter() - start
        found = reconstruct(reconstructor, data, infer or InferConfig(refine=0))
        found.seconds["read"] = reading  # type: ignore[index]
        return found

    return _reconstructed(run, patterns, seconds)


def inference_and_pass(**request: Any) -> Facts:
    """File to object, the network for a part of the patterns and a pass of refinement for all."""
    return inference(**request, infer=InferConfig(predict_overlap=0.4, refine=1))


MEASURES: dict[str, Callable[..., Facts]] = {
    "matrix product": matrix_product,
    "memory copy": memory_copy,
    "device product": device_product,
    "import": import_time,
    "ePIE pass": epie_pass,
    "grouping": grouping,
    "stitching": stitching,
    "training": training,
    "forward": forward,
    "inference": inference,
    "inference + pass": inference_and_pass,
}
