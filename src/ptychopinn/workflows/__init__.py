"""The use cases of the command line, Python and Ptychodus."""

from __future__ import annotations

from ptychopinn.workflows._backends import create_reconstructor, device_library, load_reconstructor, run_settings
from ptychopinn.workflows._demo import DEMO_SECONDS, demo_run
from ptychopinn.workflows._evaluate import align_in_frame, evaluate_run, scores_of
from ptychopinn.workflows._infer import infer, infer_run
from ptychopinn.workflows._inspect import Inspection, inspect_run, inspect_scan, warn_of_geometry
from ptychopinn.workflows._outputs import RunResult, caption, reconstruction_figures, save_reconstruction
from ptychopinn.workflows._pretrain import pretrain_run, record_pretraining
from ptychopinn.workflows._reconstruct import find_start, load_start, reconstruct_run
from ptychopinn.workflows._simulate import simulate_run
from ptychopinn.workflows._solve import create_solver, solve, solve_run
from ptychopinn.workflows._stream import stream_run
from ptychopinn.workflows._train import follow_training, prepare_training, train_run

__all__ = [
    "DEMO_SECONDS",
    "Inspection",
    "RunResult",
    "align_in_frame",
    "caption",
    "create_reconstructor",
    "create_solver",
    "demo_run",
    "device_library",
    "evaluate_run",
    "find_start",
    "follow_training",
    "infer",
    "infer_run",
    "inspect_run",
    "inspect_scan",
    "load_reconstructor",
    "load_start",
    "prepare_training",
    "pretrain_run",
    "reconstruct_run",
    "reconstruction_figures",
    "record_pretraining",
    "run_settings",
    "save_reconstruction",
    "scores_of",
    "simulate_run",
    "solve",
    "solve_run",
    "stream_run",
    "train_run",
    "warn_of_geometry",
]
