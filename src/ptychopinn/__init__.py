"""Neural ptychography reconstructors; deep-learning frameworks are separate distributions that plug in.

The names below are imported when they are used. Importing this package imports nothing else of it and no framework.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ptychopinn.api import Model as Model
    from ptychopinn.api import Result as Result
    from ptychopinn.api import Scan as Scan
    from ptychopinn.api import load as load
    from ptychopinn.api import read as read
    from ptychopinn.api import reconstruct as reconstruct
    from ptychopinn.api import simulate_scan as simulate_scan
    from ptychopinn.api import train as train
    from ptychopinn.batch import batch_run as batch_run
    from ptychopinn.bundle import read_bundle as read_bundle
    from ptychopinn.comparison import compare_run as compare_run
    from ptychopinn.comparison import study_run as study_run
    from ptychopinn.config import InferConfig as InferConfig
    from ptychopinn.config import ModelConfig as ModelConfig
    from ptychopinn.config import RunSettings as RunSettings
    from ptychopinn.config import SimulationConfig as SimulationConfig
    from ptychopinn.config import TrainConfig as TrainConfig
    from ptychopinn.data.dataset import Measurement as Measurement
    from ptychopinn.data.dataset import ScanDataset as ScanDataset
    from ptychopinn.data.io import read_scan as read_scan
    from ptychopinn.data.io import write_scan as write_scan
    from ptychopinn.errors import PtychoPinnError as PtychoPinnError
    from ptychopinn.monitor import Monitor as Monitor
    from ptychopinn.plugins import discover as discover
    from ptychopinn.product import read_product as read_product
    from ptychopinn.reconstruction import Reconstruction as Reconstruction
    from ptychopinn.workflows import create_reconstructor as create_reconstructor
    from ptychopinn.workflows import demo_run as demo_run
    from ptychopinn.workflows import evaluate_run as evaluate_run
    from ptychopinn.workflows import infer_run as infer_run
    from ptychopinn.workflows import load_reconstructor as load_reconstructor
    from ptychopinn.workflows import run_settings as run_settings
    from ptychopinn.workflows import simulate_run as simulate_run
    from ptychopinn.workflows import stream_run as stream_run
    from ptychopinn.workflows import train_run as train_run

_HOME = {
    "InferConfig": "config",
    "Measurement": "data.dataset",
    "Model": "api",
    "ModelConfig": "config",
    "Monitor": "monitor",
    "PtychoPinnError": "errors",
    "Reconstruction": "reconstruction",
    "Result": "api",
    "RunSettings": "config",
    "Scan": "api",
    "ScanDataset": "data.dataset",
    "SimulationConfig": "config",
    "TrainConfig": "config",
    "batch_run": "batch",
    "compare_run": "comparison",
    "create_reconstructor": "workflows",
    "demo_run": "workflows",
    "discover": "plugins",
    "evaluate_run": "workflows",
    "infer_run": "workflows",
    "load": "api",
    "load_reconstructor": "workflows",
    "read": "api",
    "read_bundle": "bundle",
    "read_product": "product",
    "read_scan": "data.io",
    "reconstruct": "api",
    "run_settings": "workflows",
    "simulate_run": "workflows",
    "simulate_scan": "api",
    "stream_run": "workflows",
    "study_run": "comparison",
    "train": "api",
    "train_run": "workflows",
    "write_scan": "data.io",
}

__all__ = [*_HOME, "__version__"]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("ptychopinn")
    if name not in _HOME:
        raise AttributeError(f"module 'ptychopinn' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"ptychopinn.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
