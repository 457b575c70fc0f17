"""The PyTorch and the TensorFlow backend side by side: how far they agree, and what each costs.

    python benchmarks/parity.py [--architecture cnn] [--N 64 128] [--rows 20] [--rounds 2] [--threads 1]

Both backends must be installed. Each computes in processes of its own, so that neither touches the other's memory. The
tables are printed as Markdown; docs/parity.md has them. `tests/parity` holds the agreement against its limits.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from ptychopinn.bundle import read_bundle
from ptychopinn.config import InferConfig, ModelConfig, SimulationConfig, TrainConfig
from ptychopinn.monitor import Monitor, Progress
from ptychopinn.plugins import discover
from ptychopinn.simulate import simulate_scan
from ptychopinn.typing import AnyArray

PAIR = ("torch", "tf")
LIMITS = {
    "patches, torch to tf": 1e-4,
    "patches, tf to torch": 1e-4,
    "loss of one batch": 1e-5,
    "gradient of a weight": 1e-3,
    "loss within ten steps": 1e-3,
}
_FRAMEWORKS = {"torch", "lightning_fabric", "tensorflow", "keras"}
LEARN: Mapping[str, Any] = {"nepochs": 4, "probe_refinement": 0, "learning_rate": 0.01}
INITIAL: Mapping[str, Any] = {"nepochs": 1, "probe_refinement": 0, "learning_rate": 1e-12, "weight_averaging": 0.0}
# Ten epochs of one step each, with every term of the loss, all of the physics free and nothing clipped: the optimizer's
# first moment in the first checkpoint is then the gradient.
_STEPS = {
    "nepochs": 10,
    "n_groups": 4,
    "batch_size": 4,
    "checkpoint_every": 1,
    "checkpoint_top_k": 10,
    "probe_refinement": 0,
    "scheduler": "constant",
    "gradient_clip": None,
    "probe_trainable": True,
    "intensity_scale_trainable": True,
    "mae_weight": 0.1,
    "realspace_weight": 0.01,
    "realspace_mae_weight": 0.2,
}
# Of the largest gradient's norm: where the scale of the counts fits, its gradient is a sum that cancels, and what is
# left of it is rounding.
_MIN_NORM = 0.01
_FIRST_MOMENT = 0.1  # share of the first gradient in the first moment after one step: 1 - beta_1


def compute(task: Mapping[str, Any]) -> dict[str, Any]:
    """What one backend makes of a task.

    Fields of the task: ``backend``; ``scan``, of a SimulationConfig; ``options``; ``model``, of a ModelConfig, or
    ``load``, an archive; ``train``, of a TrainConfig; ``checkpoints``, a folder; ``save``, a path; ``predict``, how
    often.
    """
    start = time.perf_counter()
    cls, options = (spec := discover().get(task["backend"])).load_class(), spec.options(**task["options"])
    found: dict[str, Any] = {"import_seconds": time.perf_counter() - start}
    scan = simulate_scan(SimulationConfig(**task["scan"]))
    made = cls.load(task["load"], options) if "load" in task else cls(ModelConfig(**task["model"]), options)
    if "train" in task:
        ticks: list[tuple[float, float]] = []

        def tick(progress: Progress) -> None:
            if progress.stage == "train":
                ticks.append(_clocks())

        start = time.perf_counter()
        config = TrainConfig(**task["train"])
        result = made.train(scan, config, checkpoint_dir=task.get("checkpoints"), monitor=Monitor(tick))
        found |= {f"history/{name}": np.array(values) for name, values in result.history.items()}
        found["first_step_seconds"] = ticks[0][0] - start
        epochs = len(result.history["epoch"])
        ends = np.array(ticks[len(ticks) // epochs - 1 :: len(ticks) // epochs])  # of epochs, all of one length
        found["training_rates"] = result.patterns_seen / epochs / np.diff(ends, axis=0)
    if "save" in task:
        made.save(task["save"])
        found["archive_bytes"] = Path(task["save"]).stat().st_size
    rates = []
    for _ in range(task.get("predict", 0)):
        begun = _clocks()
        prediction = made.infer(scan, InferConfig())
        batches = list(prediction.batches)
        rates.append(len(scan) / np.subtract(_clocks(), begun))
        found["patches"] = np.concatenate([prediction.library.to_host(batch.patches) for batch in batches])
    found["inference_rates"] = np.array(rates)
    found["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    found["frameworks"] = np.array(sorted(_FRAMEWORKS & sys.modules.keys()))
    return found


def _clocks() -> tuple[float, float]:
    """Wall time, and the processor time of all threads, s."""
    return time.perf_counter(), time.process_time()


def in_own_process(folder: Path, backend: str, *tasks: Mapping[str, Any]) -> list[dict[str, AnyArray]]:
    """`compute` of one task after another in a fresh process, on the CPU unless options say otherwise.

    Raises
    ------
    RuntimeError
        With what it wrote to stderr, if it fails.
    """
    given = folder / f"{backend}-tasks.json"
    defaults = {"options": {"accelerator": "cpu"}}
    given.write_text(json.dumps([{**defaults, **task, "backend": backend} for task in tasks]))
    command = [sys.executable, str(Path(__file__).resolve()), "--tasks", str(given)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{backend} failed:\n{done.stderr}")
    found = []
    for number in range(len(tasks)):
        with np.load(_result(given, number)) as file:
            found.append(dict(file))
    return found


def _result(tasks: Path, number: int) -> Path:
    return tasks.with_name(f"{tasks.stem}-result-{number}.npz")


def agreement(
    folder: Path,
    cases: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]],
    learn: Mapping[str, Any] = LEARN,
) -> dict[str, dict[str, float]]:
    """How far the backends agree; every figure is relative.

    Parameters
    ----------
    folder:
        For files.
    cases:
        Name to fields of SimulationConfig and of ModelConfig.
    learn:
        Fields of TrainConfig: how the weights come about that are compared.

    Returns
    -------
    Name of the case to name of the figure, as in `LIMITS`, to figure: largest difference of a patch's pixel over the
    mean amplitude, of an archive written by one and read by the other; of the loss of the same weights and batch; of a
    weight's gradient, norm by norm; of the loss within ten steps.
    """

    def archive(name: str, backend: str) -> str:
        return str(folder / f"{name}-{backend}.zip")

    def checkpoints(name: str, backend: str) -> Path:
        return folder / f"{name}-{backend}-checkpoints"

    def writing(backend: str) -> list[dict[str, Any]]:
        return [
            {"scan": scan, "model": model, "train": dict(learn), "save": archive(name, backend), "predict": 1}
            for name, (scan, model) in cases.items()
        ]

    def reading(backend: str) -> list[dict[str, Any]]:
        (other,) = set(PAIR) - {backend}
        return [{"scan": scan, "load": archive(name, other), "predict": 1} for name, (scan, _) in cases.items()]

    def stepping(backend: str) -> list[dict[str, Any]]:
        same = PAIR[0]
        return [
            {
                "scan": scan,
                "load": archive(name, same),
                "train": _STEPS,
                "checkpoints": str(checkpoints(name, backend)),
            }
            for name, (scan, _) in cases.items()
        ]

    count = len(cases)
    with ThreadPoolExecutor(len(PAIR)) as pool:  # of processes side by side
        wrote = dict(zip(PAIR, pool.map(lambda one: in_own_process(folder, one, *writing(one)), PAIR), strict=True))
        found = pool.map(lambda one: in_own_process(folder, one, *reading(one), *stepping(one)), PAIR)
        then = dict(zip(PAIR, found, strict=True))
    read = {backend: results[:count] for backend, results in then.items()}
    steps = {backend: results[count:] for backend, results in then.items()}
    return {
        name: {
            **{
                f"patches, {writer} to {reader}": largest_pixel_difference(
                    wrote[writer][k]["patches"], read[reader][k]["patches"]
                )
                for writer, reader in (PAIR, PAIR[::-1])
            },
            **loss_differences(*(steps[backend][k]["history/loss"] for backend in PAIR)),
            "gradient of a weight": _gradients(*(_first_gradients(checkpoints(name, backend)) for backend in PAIR)),
        }
        for k, name in enumerate(cases)
    }


def largest_pixel_difference(written: AnyArray, read: AnyArray) -> float:
    """The largest difference of a pixel, over the mean of what was written."""
    return float(np.abs(read - written).max() / np.abs(written).mean())


def loss_differences(one: AnyArray, other: AnyArray) -> dict[str, float]:
    """Relative differences of the losses of each batch: the first, and the largest."""
    difference = np.abs(other / one - 1)
    return {"loss of one batch": float(difference[0]), "loss within ten steps": float(difference.max())}


def _gradients(one: Mapping[str, AnyArray], other: Mapping[str, AnyArray]) -> float:
    if one.keys() != other.keys():
        raise RuntimeError(f"gradients of different weights: {one.keys() ^ other.keys()}")
    norms = {name: float(np.linalg.norm(array)) for name, array in one.items()}
    least = _MIN_NORM * max(norms.values())
    return max(float(np.linalg.norm(other[name] - array)) / max(norms[name], least) for name, array in one.items())


def _first_gradients(checkpoints: Path) -> dict[str, AnyArray]:
    """Gradients of a training's first step, by weight, kernels as (out, in, y, x)."""
    found = {}
    for key, array in read_bundle(checkpoints / "epoch-0000001.ckpt.zip").weights.items():
        name, _, moment = key.removeprefix("optimizer/").rpartition("/")
        if key.startswith("optimizer/") and moment in ("exp_avg", "first"):
            own = moment == "first" and name.startswith("network/") and array.ndim == 4  # TensorFlow's (y, x, in, out)
            found[name] = (array.transpose(3, 2, 0, 1) if own else array) / _FIRST_MOMENT
    return found


def costs(
    folder: Path, columns: Mapping[str, tuple[str, Mapping[str, Any]]], scan: Mapping[str, Any], **task: Any
) -> dict[str, dict[str, float]]:
    """What each column's backend takes for a training of six epochs and some inferences, in a process of its own.

    Rates are those of the quickest epoch and the quickest inference, so that other work on the machine counts little;
    in those over processor time it hardly counts at all where a backend has one thread.
    """
    found = {}
    for name, (backend, options) in columns.items():
        train = {"nepochs": 6, "probe_refinement": 0}
        rest = {"scan": scan, "options": dict(options), "train": train, "save": str(folder / "cost.zip"), "predict": 6}
        (one,) = in_own_process(folder, backend, {**rest, **task})
        found[name] = {
            "import, s": float(one["import_seconds"]),
            "first step, s": float(one["first_step_seconds"]),
            "training, patterns/s": float(one["training_rates"][:, 0].max()),
            "inference, patterns/s": float(one["inference_rates"][:, 0].max()),
            "training, patterns/s of processor time": float(np.median(one["training_rates"][:, 1])),
            "inference, patterns/s of processor time": float(np.median(one["inference_rates"][1:, 1])),
            "peak memory, MiB": float(one["peak_mib"]),
            "archive, KiB": float(one["archive_bytes"]) / 1024,
        }
    return found


def best(rounds: list[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    """The best figure of several rounds: the largest rate, the smallest of all else."""
    return {
        column: {row: (max if "/s" in row else min)(one[column][row] for one in rounds) for row in rows}
        for column, rows in rounds[0].items()
    }


def table(columns: Mapping[str, Mapping[str, float]]) -> str:
    """A Markdown table: column name to row name to figure."""
    rows = list(next(iter(columns.values())))
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    return "\n".join(
        [*lines, *(f"| {row} | " + " | ".join(f"{c[row]:.3g}" for c in columns.values()) + " |" for row in rows)]
    )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--architecture", default="fast", help="fast or cnn.")
    parser.add_argument(
        "--N", type=int, nargs="+", default=[64], help="Widths of the patterns; costs are of the first."
    )
    parser.add_argument("--rows", type=int, default=20, help="Rows and columns of the scan whose time is taken.")
    parser.add_argument(
        "--rounds", type=int, default=2, help="Times that the costs are taken, in turns; 0 leaves them."
    )
    parser.add_argument(
        "--initial", action="store_true", help="Compare initial weights, not those of a short training."
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="Of each backend (default: all).")
    parser.add_argument("--accelerator", default="cpu", help="cpu, cuda or auto, for the costs.")
    arguments = parser.parse_args()
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS"), str(arguments.threads))
    architecture, first = arguments.architecture, arguments.N[0]
    cases = {
        f"{architecture}, {kind}, N = {N}": (
            {"N": N, "rows": 6, "cols": 6, "seed": 1},
            {"architecture": architecture, "N": N, "model_type": kind},
        )
        for N in arguments.N
        for kind in ("pinn", "supervised")
    }
    device = {"accelerator": arguments.accelerator}
    columns = {"torch": ("torch", device), "tf": ("tf", device), "tf, xla": ("tf", {**device, "xla": True})}
    scan = {"N": first, "rows": arguments.rows, "cols": arguments.rows, "seed": 1}
    with tempfile.TemporaryDirectory(prefix="parity-") as name:
        folder = Path(name)
        found = {**agreement(folder, cases, INITIAL if arguments.initial else LEARN), "limit": LIMITS}
        print(
            f"Relative differences:\n\n{table({row: {c: found[c][row] for c in found} for row in LIMITS})}", flush=True
        )
        model = {"architecture": architecture, "N": first}
        rounds = [costs(folder, columns, scan, model=model) for _ in range(arguments.rounds)]
    if rounds:
        spent = best(rounds)
        spent["tf over torch"] = {row: value / spent["torch"][row] for row, value in spent["tf"].items()}
        where = f"{arguments.accelerator}, {arguments.threads} threads on {os.cpu_count()} cores"
        print(f"\nCosts, {architecture}, {arguments.rows**2} patterns of N = {first}, {where}:\n\n{table(spent)}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--tasks"]:
        given = Path(sys.argv[2])
        for number, task in enumerate(json.loads(given.read_text())):
            np.savez(_result(given, number), **compute(task))
    else:
        main()
