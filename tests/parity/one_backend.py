"""What one backend makes of a task: run in a process of its own, since two frameworks in one get in each other's way.

``python one_backend.py TASK.json RESULT.npz``; `main` says which fields a task has.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from ptychopinn.bundle import read_bundle
from ptychopinn.config import InferConfig, ModelConfig, SimulationConfig, TrainConfig
from ptychopinn.plugins import discover
from ptychopinn.simulate import simulate_scan

_CONFIGS = {"model": ModelConfig, "train": TrainConfig}


def main(task: dict[str, Any]) -> dict[str, Any]:
    """Load or make a model, train it, save it, predict with it.

    Fields: ``backend``; ``scan``, a SimulationConfig; ``options``; ``model``, a ModelConfig, or ``load``, an archive;
    ``train``, a TrainConfig; ``checkpoints``, a folder; ``save``, a path; ``predict``, an InferConfig.
    """
    spec = discover().get(task["backend"])
    options = spec.options(**task.get("options", {}))
    scan = simulate_scan(SimulationConfig(**task["scan"]))
    cls = spec.load_class()
    made = cls.load(task["load"], options) if "load" in task else cls(ModelConfig(**task["model"]), options)
    found: dict[str, Any] = {}
    if "train" in task:
        start = time.perf_counter()
        result = made.train(scan, TrainConfig(**task["train"]), checkpoint_dir=task.get("checkpoints"))
        found["train_seconds"] = time.perf_counter() - start
        found |= {f"history/{name}": np.array(values) for name, values in result.history.items()}
        found["patterns_seen"] = result.patterns_seen
    if "save" in task:
        made.save(task["save"])
        found["archive_bytes"] = Path(task["save"]).stat().st_size
        found |= {f"weights/{name}": array for name, array in read_bundle(task["save"]).weights.items()}
    if "predict" in task:
        for _ in range(task.get("repeat", 1)):
            start = time.perf_counter()
            prediction = made.infer(scan, InferConfig(**task["predict"]))
            found["patches"] = np.concatenate([batch.patches for batch in prediction.batches])
            found["predict_seconds"] = time.perf_counter() - start
        found["probe"] = prediction.probe
    found["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    frameworks = {"torch", "lightning", "tensorflow", "keras"}
    found["frameworks"] = np.array(sorted(frameworks & sys.modules.keys()))
    return found


if __name__ == "__main__":
    np.savez(sys.argv[2], **main(json.loads(Path(sys.argv[1]).read_text())))
