"""Jobs for a new process, where a backend cannot depend on the state of this one.

A job has a name and plain values as arguments and result; arrays are exchanged in files.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Mapping
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ptychopinn.config import InferConfig, ModelConfig, SimulationConfig, TrainConfig
from ptychopinn.jobs import JobError, JobLimits, Task, run_job
from ptychopinn.plugins import GROUP, capability_table, discover
from ptychopinn.reconstructor import Reconstructor, ReconstructorSpec
from ptychopinn.simulate import simulate_scan

_SECONDS = 600


class RunJob(Protocol):
    """Runs a job: its name, its arguments, and a folder for its files."""

    def __call__(self, job: str, arguments: Mapping[str, Any], folder: Path) -> Any:
        """Return the job's result; raise if it fails."""
        ...


def run_in_subprocess(job: str, arguments: Mapping[str, Any], folder: Path) -> Any:
    """Run a job in a new Python process with the same search path.

    Raises
    ------
    AssertionError
        With its last lines, if it fails.
    """
    home = folder / job
    home.mkdir(exist_ok=True)
    try:
        return run_job(_task(job, arguments), home, limits=JobLimits(seconds=_SECONDS))
    except JobError as error:
        raise AssertionError(f"the job '{job}' failed in a fresh process: {error}\n{error.details}") from error


def run_in_this_process(job: str, arguments: Mapping[str, Any], folder: Path) -> Any:
    """Run a job in this process, which is faster but proves less."""
    return json.loads(json.dumps(_task(job, json.loads(json.dumps(dict(arguments)))).call()))


def _task(job: str, arguments: Mapping[str, Any]) -> Task:
    return Task(f"{__name__}:{job}", {"arguments": arguments})


def backend_arguments(spec: ReconstructorSpec, options: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments with which a job creates reconstructors of a backend."""
    return {
        "class": spec.import_string,
        "options_class": f"{spec.options.__module__}:{spec.options.__qualname__}",
        "options": dict(options),
    }


def _attribute(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def list_backend(arguments: Mapping[str, Any]) -> list[str]:
    """The modules, except the core's, that are imported by finding and listing a backend."""
    before = set(sys.modules)
    registry = discover([EntryPoint(arguments["name"], arguments["value"], GROUP)])
    assert not registry.broken, registry.broken
    capability_table(registry)
    return sorted({name.partition(".")[0] for name in set(sys.modules) - before})


def predict(arguments: Mapping[str, Any]) -> int:
    """Load an archive, predict a simulated scan, and write the patches to a file."""
    cls, options = _attribute(arguments["class"]), _attribute(arguments["options_class"])
    loaded = cls.load(arguments["archive"], options(**arguments["options"]))
    return _leave_patches(loaded, arguments)


def train(arguments: Mapping[str, Any]) -> int:
    """Train on a simulated scan, save, and write the patches to a file."""
    cls, options = _attribute(arguments["class"]), _attribute(arguments["options_class"])
    made: Reconstructor = cls(ModelConfig(**arguments["model"]), options(**arguments["options"]))
    made.train(simulate_scan(SimulationConfig(**arguments["scan"])), TrainConfig(**arguments["train"]))
    made.save(arguments["archive"])
    return _leave_patches(made, arguments)


def _leave_patches(reconstructor: Reconstructor, arguments: Mapping[str, Any]) -> int:
    scan = simulate_scan(SimulationConfig(**arguments["scan"]))
    np.save(arguments["patches"], reconstructor.infer(scan, InferConfig()).collect(len(scan)))
    return len(scan)
