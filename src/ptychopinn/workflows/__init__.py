"""The use cases of the command line, Python and Ptychodus."""

from __future__ import annotations

from ptychopinn.workflows._backends import create_reconstructor, load_reconstructor, run_settings
from ptychopinn.workflows._demo import DEMO_SECONDS, demo_run
from ptychopinn.workflows._evaluate import evaluate_run
from ptychopinn.workflows._infer import infer_run
from ptychopinn.workflows._inspect import Inspection, inspect_run
from ptychopinn.workflows._outputs import RunResult
from ptychopinn.workflows._pretrain import pretrain_run, record_pretraining
from ptychopinn.workflows._reconstruct import reconstruct_run
from ptychopinn.workflows._simulate import simulate_run
from ptychopinn.workflows._solve import create_solver, solve, solve_run
from ptychopinn.workflows._stream import stream_run
from ptychopinn.workflows._train import train_run

__all__ = [
    "DEMO_SECONDS",
    "Inspection",
    "RunResult",
    "create_reconstructor",
    "create_solver",
    "demo_run",
    "evaluate_run",
    "infer_run",
    "inspect_run",
    "load_reconstructor",
    "pretrain_run",
    "reconstruct_run",
    "record_pretraining",
    "run_settings",
    "simulate_run",
    "solve",
    "solve_run",
    "stream_run",
    "train_run",
]
