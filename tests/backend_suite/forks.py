"""A process that was forked from one that has trained: refused in words, not waited for for ever."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

_SCRIPT = """
import os, sys, warnings
from ptychopinn.config import InferConfig, ModelConfig, SimulationConfig, TrainConfig
from ptychopinn.plugins import discover
from ptychopinn.simulate import simulate_scan

warnings.simplefilter("ignore")
scan = simulate_scan(SimulationConfig(N=32, rows=4, cols=4))
spec = discover().get("BACKEND")
cls = spec.load_class()
options = spec.options(accelerator="cpu", threads=2)
new = cls(ModelConfig(N=32, iterations=1), options)
train = TrainConfig(nepochs=1, batch_size=4, probe_refinement=0)
new.train(scan, train)
pid = os.fork()
if pid == 0:
    try:
        cls(ModelConfig(N=32, iterations=1), options).train(scan, train)
    except Exception as error:
        print(type(error).__name__, error)
    try:
        new.infer(scan, InferConfig())
    except Exception as error:
        print(type(error).__name__)
    sys.stdout.flush()
    os._exit(0)
os.waitpid(pid, 0)
"""


def train_in_a_fork(backend: str) -> str:
    """Train, fork, and train and infer in the fork: what it printed."""
    if not hasattr(os, "fork"):
        pytest.skip("this system has no fork")
    script = _SCRIPT.replace("BACKEND", backend)
    env = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=env | {"OMP_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def check_forks_are_refused(backend: str) -> None:
    """The test of every backend that computes with threads of its own."""
    said = train_in_a_fork(backend).splitlines()
    assert said[0].startswith("UsageError This process was forked from process ")
    assert "spawn" in said[0]
    assert said[1:] == ["UsageError"]
