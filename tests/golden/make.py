"""Write the golden files beside this script; README.md says which they are and from which version.

    python tests/golden/make.py [FOLDER]

It needs both backends, and Ptychodus for settings.ini, which is left out where Ptychodus is not installed. It is run at
the commit whose files are wanted, never to make a failing test pass.
"""

from __future__ import annotations

import importlib.util
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from ptychopinn.config import InferConfig, SimulationConfig
from ptychopinn.data.io import read_scan, write_scan
from ptychopinn.plugins import discover
from ptychopinn.reconstruction import reconstruct
from ptychopinn.simulate import simulate_scan
from ptychopinn.workflows import load_reconstructor, run_settings, train_run

HERE = Path(__file__).parent
SMALLEST = {"n_filters_scale": 0.05}
NETWORKS: dict[str, dict[str, Any]] = {
    "fast": {**SMALLEST, "iterations": 2, "group_size": 4},
    "cnn": {**SMALLEST, "architecture": "cnn", "gridsize": 2},
}
RUNS = {"torch-fast": ("torch", "fast"), "tf-fast": ("tf", "fast"), "torch-cnn": ("torch", "cnn")}
TRAIN = {"nepochs": 40, "n_groups": 32, "batch_size": 2, "learning_rate": 0.01, "checkpoint_every": 40, "seed": 4}
KEPT = ("config.yaml", "scan.json", "wts.h5.zip")
RESUMED = ("torch-fast", "tf-fast")  # keep their checkpoint too


def main(folder: Path) -> None:
    """Simulate, train, predict."""
    folder.mkdir(parents=True, exist_ok=True)
    scan_file = folder / "scan.npz"
    write_scan(scan_file, simulate_scan(SimulationConfig(N=32, rows=4, cols=4, nphotons=1e4, seed=7)), compress=True)
    predictions = {}
    for name, (backend, network) in RUNS.items():
        with tempfile.TemporaryDirectory() as scratch:
            made = Path(scratch) / name
            options = {"accelerator": "cpu"}
            train_run(scan_file, made, run_settings(backend, model=NETWORKS[network], train=TRAIN, execution=options))
            checkpoints = sorted((made / "checkpoints").iterdir())[-1:] if name in RESUMED else []
            for path in [made / kept for kept in KEPT] + checkpoints:
                target = folder / name / path.relative_to(made)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes())
        reconstructor = load_reconstructor(folder / name / "wts.h5.zip", options=options)
        data = read_scan(scan_file)
        predictions[f"{name}/patches"] = reconstructor.infer(data, InferConfig()).collect(len(data))
        predictions[f"{name}/object"] = reconstruct(reconstructor, data, InferConfig(synchronise="on")).object
    np.savez_compressed(folder / "predictions.npz", **predictions)
    if importlib.util.find_spec("ptychodus") is None:
        print("Ptychodus is not installed; settings.ini is left out.")
    else:
        write_settings(folder / "settings.ini")


def write_settings(path: Path) -> None:
    """The groups of our entries as Ptychodus saves them, with a few settings that somebody changed."""
    from ptychodus.api.settings import SettingsRegistry

    from ptychopinn_ptychodus.settings import EntrySettings, entry_settings

    registry = SettingsRegistry()
    changed = {
        ("model", "n_filters_scale"): "0.5",
        ("train", "batch_size"): "3",
        ("train", "gradient_clip"): "",
        ("train", "simulate_objects"): "mixed",
        ("infer", "refine"): "2",
        ("execution", "accelerator"): "cpu",
    }
    for backend in ("torch", "tf"):
        for model_type in ("pinn", "supervised"):
            group = f"PtychoPINNPlugin-{backend}-{model_type}"
            settings = EntrySettings(registry, group, entry_settings(discover().get(backend)))
            for (section, name), text in changed.items():
                settings.parameter(section, name).set_value(text)
    registry.save_settings(path)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
