"""What `gpu.py` measures: each part runs in a process of its own and prints a line of JSON for every measurement.

Shares are of what was reached on the same device in the same run, and of the least that the work needs:

- of the matrix product, the convolutions and matrix products of the network alone (training: three times a prediction),
  or the Fourier transforms of a pass, 5 n log2 n each, two for every probe mode;
- of the copy, each pattern read once and, of a prediction, its patch written; of a pass, each pattern read in float32,
  its window read twice and written once.

What else is done for a pattern is not counted, so that a share says how much of the device is put to that work.
"""

from __future__ import annotations

import importlib
import json
import math
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from measures import rate
from refinement import placed
from tiled_scans import field_of, write_npz

from ptychopinn.config import InferConfig, ModelConfig, SimulationConfig, TrainConfig
from ptychopinn.config.build import build
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.io import read_scan
from ptychopinn.metrics import align, scan_box, score
from ptychopinn.parity.stages import STAGES, stages_of
from ptychopinn.plugins import discover
from ptychopinn.reconstruction import Reconstruction, reconstruct
from ptychopinn.simulate import simulate_scan
from ptychopinn.workflows import evaluate_run

Facts = dict[str, Any]
SCORES = ("amp_ssim", "phase_ssim", "nrmse", "phase_corr")
_TINY = {"n_filters_scale": 0.1, "iterations": 2}  # the network of the quick form
_GROUP_BATCHES, _PATTERN_BATCHES = (4, 64, 256), (64, 256, 1024, 4096)


def main(request: Facts) -> None:
    """Measure one part."""
    bench = Bench(**{name: value for name, value in request.items() if name not in ("part", "star")})
    if request["part"] == "rates":
        rates(bench)
    elif request["part"] == "quality":
        quality(bench)
    elif request["part"] == "agreement":
        agreement(bench)
    else:
        star(bench, Path(request["star"]))


@dataclass(frozen=True)
class Bench:
    """What is asked for.

    Attributes
    ----------
    device, backend:
        Where, and by which backend.
    sizes, patterns:
        N of the scans, and how many patterns they have.
    quick:
        Whether the smallest form is wanted.
    folder:
        Of temporary files.
    end:
        When the time is over, seconds of `time.time`.
    """

    device: str
    backend: str
    sizes: list[int]
    patterns: int
    quick: bool
    folder: str
    end: float

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return self.end - time.time()

    def some(self, seconds: float) -> float:
        """Seconds for a measurement."""
        return 0.1 if self.quick else seconds

    def new(self, size: int, device: str | None = None) -> Any:
        """A reconstructor that is not trained."""
        model = ModelConfig(N=size, **(_TINY if self.quick else {}))
        return discover().get(self.backend).load_class()(model, self.options(device))

    def load(self, path: Path, device: str | None = None) -> Any:
        """A reconstructor out of an archive."""
        return discover().get(self.backend).load_class().load(path, self.options(device))

    def options(self, device: str | None = None) -> Any:
        """As a user who wants speed sets them."""
        options = {"accelerator": device or self.device, "deterministic": False}
        return build(discover().get(self.backend).options, options)

    def measure(self, what: str, least_s: float, work: Callable[[], Facts], **facts: Any) -> Facts:
        """Print the facts of a measurement, or why there are none; it is not begun with less than ``least_s`` left."""
        least_s = least_s / 20 if self.quick else least_s
        if self.left < least_s:
            return emit({"what": what, **facts, "left_out": f"{max(self.left, 0):.0f} s were left"})
        try:
            reset_memory(self.device)
            found = work()
            return emit({"what": what, **facts, **found, **device_memory(self.device)})
        except Exception as error:
            why = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            frames = [f"{Path(one.filename).name}:{one.lineno}" for one in traceback.extract_tb(error.__traceback__)]
            return emit({"what": what, **facts, "error": f"{why} (at {', '.join(frames[-4:])})"})


def emit(facts: Facts) -> Facts:
    """Print a line that survives if this process is ended."""
    print(json.dumps(facts), flush=True)
    return facts


def torch_on(device: str) -> Any:
    """The module torch where it computes on a CUDA device, else None."""
    torch = importlib.import_module("torch")
    return torch if device.startswith("cuda") and torch.cuda.is_available() else None


def reset_memory(device: str) -> None:
    """Begin to watch the device's memory."""
    if (torch := torch_on(device)) is not None:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def device_memory(device: str) -> Facts:
    """The most of the device's memory that tensors of PyTorch took since `reset_memory`."""
    torch = torch_on(device)
    return {} if torch is None else {"peak_GiB": torch.cuda.max_memory_allocated(device) / 2**30}


def machine(device: str) -> Facts:
    """Card and versions."""
    facts: Facts = {}
    torch = torch_on(device)
    if torch is not None:
        facts = {"card": torch.cuda.get_device_name(device), "CUDA": torch.version.cuda or f"ROCm {torch.version.hip}"}
    for name in ("ptychopinn", "torch", "lightning", "numpy", "tensorflow"):
        try:
            facts[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return facts


# Rates


@dataclass(frozen=True)
class Ceilings:
    """What the device reaches, operations and bytes a second; NaN where that was not measured."""

    product: float
    copy: float

    def shares(self, found: float, operations: float | None, moved: float) -> Facts:
        """Of a rate of patterns that need so many operations and move so many bytes each."""
        product = {} if operations is None else {"of_product": found * operations / self.product}
        return {**product, "of_copy": found * moved / self.copy}


def rates(bench: Bench) -> None:
    """Ceilings, then everything at each N; what differs only in its batch size comes last."""
    emit({"machine": machine(bench.device)})
    ceilings = Ceilings(*(bench.measure(*one).get("value", math.nan) * 1e9 for one in ceilings_of(bench)))
    scans = {size: Scan.make(bench, size) for size in bench.sizes}
    for scan in scans.values():
        scan.train(bench, ceilings, "training", {})
        scan.predict(bench, ceilings, None)
        scan.reconstruct(bench, ceilings)
        scan.train(bench, ceilings, "training, simulated patterns", {"simulate_objects": "only"})
    for scan in scans.values():
        for batch in _GROUP_BATCHES[: 1 if bench.quick else None]:
            scan.train(bench, ceilings, "training", {"batch_size": batch})
        for batch in _PATTERN_BATCHES[: 1 if bench.quick else None]:
            scan.predict(bench, ceilings, batch)


def ceilings_of(bench: Bench) -> list[tuple[str, float, Callable[[], Facts]]]:
    """Matrix product and copy on the device, by torch."""
    torch = importlib.import_module("torch")
    large = torch_on(bench.device) is not None
    width, floats = (8192, 1 << 28) if large else (1024, 1 << 22)

    def wait() -> None:
        if large:
            torch.cuda.synchronize(bench.device)

    def ceiling(work: Callable[[], int], unit: str) -> Facts:
        found = rate(work, bench.some(1.0), 1e9, unit)
        return {"value": found["value"], "unit": unit}

    def product() -> Facts:
        a = torch.randn(width, width, device=bench.device)

        def multiply() -> int:
            a @ a
            wait()
            return 2 * width**3

        return ceiling(multiply, "GFLOP/s")

    def copy() -> Facts:
        a = torch.ones(floats, device=bench.device)
        b = torch.empty_like(a)

        def move() -> int:
            b.copy_(a)
            wait()
            return 2 * 4 * floats

        return ceiling(move, "GB/s")

    return [("matrix product, float32", 3.0, product), ("copy", 3.0, copy)]


@dataclass(frozen=True)
class Scan:
    """A scan file, and a model that was trained on it."""

    path: Path
    model: Path
    field: ScanDataset  # that is repeated
    size: int
    patterns: int
    operations: float | None  # of the network, a pattern

    @classmethod
    def make(cls, bench: Bench, size: int) -> Scan:
        """Write the file; count what the network computes."""
        folder = Path(bench.folder)
        path = folder / f"{size}.npz"
        field = field_of(size, bench.patterns)
        write_npz(path, field, bench.patterns)
        return cls(path, folder / f"{size}.model", field, size, bench.patterns, network_operations(bench, field))

    @property
    def moved(self) -> float:
        """Bytes of a prediction: a pattern of uint16 in, a patch of complex64 out."""
        return 2 * self.size**2 + 8 * (self.size // 2) ** 2

    def train(self, bench: Bench, ceilings: Ceilings, what: str, train: Facts) -> None:
        """Patterns a second while training, start-up left out; the first leaves the model."""
        seconds = bench.some(2.5)

        def work() -> Facts:
            data, reconstructor = read_scan(self.path), bench.new(self.size)
            settings = {"probe_refinement": 0, **train}
            reconstructor.train(data, TrainConfig(max_time=seconds / 3, **settings))  # to warm up
            result = reconstructor.train(data, TrainConfig(max_time=seconds, **settings))
            if not self.model.exists():
                reconstructor.save(self.model)
            found = result.patterns_seen / result.seconds
            operations = None if self.operations is None else 3 * self.operations
            return {"value": found, "unit": "patterns/s", **ceilings.shares(found, operations, 2 * self.size**2)}

        bench.measure(what, 3 * seconds + 2, work, size=self.size, batch=train.get("batch_size", "default"))

    def predict(self, bench: Bench, ceilings: Ceilings, batch: int | None) -> None:
        """Patches from patterns in memory, without placement."""

        def work() -> Facts:
            data = self.field.select(np.arange(self.patterns) % len(self.field))
            reconstructor = bench.load(self.model)
            config = InferConfig(inference_batch_size=batch)
            found = rate(
                lambda: sum(len(one.indices) for one in reconstructor.infer(data, config).batches), bench.some(1.5)
            )
            shares = ceilings.shares(found["value"], self.operations, self.moved)
            return {"value": found["value"], "unit": "patterns/s", **shares}

        bench.measure("prediction alone", 4.0, work, size=self.size, batch=batch or "default")

    def reconstruct(self, bench: Bench, ceilings: Ceilings) -> None:
        """From the file to the object, without and with refinement; and the passes of it alone."""
        free: Facts = {"refine_probe": True, "refine_positions": True}
        alone = self._file_to_object(bench, "file to object", {"refine": 0})
        least = 3 * self.patterns / alone.get("value", math.inf)
        refined = self._file_to_object(bench, "file to object, 2 passes", {"refine": 2}, least)
        two_passes = self.patterns / refined.get("value", math.inf)
        self._file_to_object(bench, "file to object, overlap 0.4, 1 pass", {"refine": 1, "predict_overlap": 0.4}, least)
        for what, changes in (("a pass, object only", {}), ("a pass, probe and positions free", free)):
            bench.measure(what, 5 * two_passes, lambda c=changes: self._a_pass(bench, ceilings, c), size=self.size)

    def _file_to_object(self, bench: Bench, what: str, infer: Facts, least: float = 2.0) -> Facts:
        def work() -> Facts:
            reconstructor, config = bench.load(self.model), InferConfig(**infer)
            best, stages, end = math.inf, {}, time.time() + bench.some(4.0)
            while not stages or (time.time() + best < end and bench.left > best):
                start = time.perf_counter()
                found = reconstruct(reconstructor, read_scan(self.path), config)
                taken = time.perf_counter() - start
                if taken < best:
                    best, stages = taken, {k: round(1e6 * s / self.patterns, 1) for k, s in found.seconds.items()}
            told = [f"{stage} {us:g}" for stage, us in stages.items()]
            return {"value": self.patterns / best, "unit": "patterns/s", "stages_us_a_pattern": told}

        return bench.measure(what, least, work, size=self.size)

    def _a_pass(self, bench: Bench, ceilings: Ceilings, changes: Facts) -> Facts:
        """From the time that more passes take; start and judging fall out of the difference but for that of a pass."""
        reconstructor, data = bench.load(self.model), read_scan(self.path)

        def refinement(passes: int) -> tuple[float, Reconstruction]:
            found = reconstruct(reconstructor, data, InferConfig(refine=passes, **changes))
            return found.seconds["refine"], found

        refinement(1)  # to warm up
        few, _ = refinement(2)
        more = 2 + min(max(int(2 * bench.some(3.0) / max(few, 1e-3)), 2), 20)
        many, found = refinement(more)
        if many <= few:
            raise RuntimeError(f"{more} passes took {many:.3g} s, 2 passes {few:.3g} s")
        value = (more - 2) * self.patterns / (many - few)
        modes, n = len(found.probe), self.size**2
        operations = 2 * modes * 5 * n * math.log2(n)
        return {
            "value": value,
            "unit": "patterns/s",
            "passes": more,
            "residual": found.residual,
            **ceilings.shares(value, operations, 4 * n + 3 * 8 * n),
        }


def network_operations(bench: Bench, field: ScanDataset) -> float | None:
    """Operations of the network's convolutions and matrix products for a pattern; None where nobody counts them."""
    if bench.backend != "torch":
        return None
    counting = importlib.import_module("torch.utils.flop_counter")
    few = field.select(np.arange(4))
    reconstructor = bench.new(field.N, "cpu")
    settings = TrainConfig(nepochs=1, n_groups=1, probe_refinement=0)
    reconstructor.train(field.select(np.arange(16)), settings)
    with counting.FlopCounterMode(display=False) as counter:
        for _ in reconstructor.infer(few, InferConfig()).batches:
            pass
    return counter.get_total_flops() / len(few) or None


# Time to quality


def quality(bench: Bench) -> None:
    """Train on one object, reconstruct another: scores by seconds of training, network alone and with two passes."""
    size = {"N": 32, "rows": 6, "cols": 6} if bench.quick else {}
    seen, unseen = (simulate_scan(SimulationConfig(seed=seed, **size)) for seed in (1, 2))
    for seconds in (0.2,) if bench.quick else (3.0, 10.0, 30.0):

        def work(seconds: float = seconds) -> Facts:
            reconstructor = bench.new(seen.N)
            start = time.perf_counter()
            result = reconstructor.train(seen, TrainConfig(max_time=seconds))
            facts: Facts = {"wall_s": time.perf_counter() - start, "patterns_seen": result.patterns_seen}
            for name, passes in (("alone", 0), ("2_passes", 2)):
                found = reconstruct(reconstructor, unseen, InferConfig(refine=passes))
                assert unseen.object_guess is not None
                whole = placed(found.object, found.frame, unseen.object_guess.shape)
                scores = score(align(unseen.object_guess, whole, scan_box(unseen.positions, whole.shape)))
                facts |= {f"{name}_{key}": float(scores[key]) for key in SCORES[:3]}
            return facts

        bench.measure("unseen object", 1.5 * seconds + 6, work, training_s=seconds)


# Agreement with the CPU


def agreement(bench: Bench) -> None:
    """The same model on the device and on the CPU: the largest difference of each stage over its mean amplitude."""
    n = 32 if bench.quick else 64
    rows = 6 if bench.quick else 16
    scan = simulate_scan(SimulationConfig(N=n, rows=rows, cols=rows, seed=1))
    path = Path(bench.folder) / "agreement.model"
    losses = []
    settings = TrainConfig(nepochs=2, probe_refinement=2, batch_size=4, learning_rate=1e-3)  # not those of each device
    for device in (bench.device, "cpu"):
        trained = bench.new(n, device)
        losses.append(np.asarray(trained.train(scan, settings).history["loss"]))
    trained.save(path)  # the CPU's
    sides = [bench.load(path, device) for device in ("cpu", bench.device)]
    batch = scan.select(np.arange(8))
    ours, theirs = (stages_of(side, batch, InferConfig()) for side in sides)
    for stage in STAGES:
        bench.measure(stage, 0.0, lambda s=stage: difference(ours[s], theirs[s]))
    for what, changes in (
        ("object", {"refine": 0}),
        ("object, 2 passes", {"refine": 2}),
        ("object, 2 passes, probe and positions free", {"refine": 2, "refine_probe": True, "refine_positions": True}),
    ):

        def objects(config: InferConfig) -> Facts:
            one, other = (reconstruct(side, scan, config) for side in sides)
            facts = difference(one.object, other.object)
            if config.refine_probe:
                facts["probe"] = difference(one.probe, other.probe)["largest"]
                facts["positions_px"] = float(np.abs(one.positions - other.positions).max())
            return facts | {"residual": other.residual, "residual_cpu": one.residual}

        bench.measure(what, 5.0, lambda c=changes: objects(InferConfig(**c)))
    emit({"what": "training loss, 2 epochs", "largest": float(np.abs(losses[0] / losses[1] - 1).max())})


def difference(a: Any, b: Any) -> Facts:
    """The largest difference over the mean amplitude."""
    gap = float(np.abs(np.asarray(b, np.complex128) - a).max())
    return {"largest": gap / (float(np.abs(a).mean()) or 1.0)}


# A measured scan


def star(bench: Bench, path: Path) -> None:
    """The command line on a measured scan: wall time, start-up included, and how the object compares."""
    reference = path.with_name(f"{path.stem}-reference.npz")
    for seconds in (1.0,) if bench.quick else (5.0, 20.0):
        run = Path(bench.folder) / f"star-{seconds:g}"

        def train(seconds: float = seconds, run: Path = run) -> Facts:
            took = command(
                bench, "train", path, "-o", run, "--backend", bench.backend, "--max-time", seconds, "--refine", 0
            )
            return {"wall_s": took, **star_scores(run, reference, path)}

        def infer(run: Path = run) -> Facts:
            out = run.with_name(f"{run.name}-refined")
            took = command(bench, "infer", run, path, "-o", out, "--refine", 10, "--refine-probe")
            return {"wall_s": took, **star_scores(out, reference, path)}

        if "error" not in bench.measure("train", 2 * seconds + 10, train, training_s=seconds):
            bench.measure("infer, 10 passes, probe free", 10.0, infer, training_s=seconds)


def command(bench: Bench, *arguments: object) -> float:
    """Run the command line; returns its wall time."""
    code = "import sys; from ptychopinn.cli import main; sys.exit(main())"
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments), "--accelerator", bench.device, "--quiet"],
        capture_output=True,
        text=True,
        timeout=max(bench.left, 1.0),
    )
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip()[-300:])
    return time.perf_counter() - start


def star_scores(run: Path, reference: Path, scan: Path) -> Facts:
    """Scores of a run, where there is a reference."""
    if not reference.is_file():
        return {}
    scores = evaluate_run(run / "reconstruction.h5", reference, scan_path=scan)
    return {name: scores[name] for name in SCORES}
