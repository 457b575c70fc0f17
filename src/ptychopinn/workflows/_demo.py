"""Every part once, on a simulated pair of scans."""

from __future__ import annotations

from ptychopinn.config.simulation import SimulationConfig
from ptychopinn.monitor import NULL_MONITOR, Monitor
from ptychopinn.typing import StrPath
from ptychopinn.workflows import folders
from ptychopinn.workflows._backends import run_settings
from ptychopinn.workflows._evaluate import evaluate_run
from ptychopinn.workflows._infer import infer_run
from ptychopinn.workflows._outputs import RunResult
from ptychopinn.workflows._simulate import simulate_run
from ptychopinn.workflows._train import train_run

_SIDE = 32  # positions a side: enough to learn from in a minute
_DEMONSTRATION = folders.FolderKind(
    "demonstration",
    frozenset({"train.npz", "test.npz", "training", "reconstruction", "evaluation"}),
    keep=(f"training/{folders.MODEL}",),
)
DEMO_SECONDS = 75.0


def demo_run(
    output: StrPath,
    *,
    backend: str,
    max_time: float = DEMO_SECONDS,
    overwrite: bool = False,
    monitor: Monitor = NULL_MONITOR,
) -> RunResult:
    """Simulate two scans of different objects, train on one, reconstruct the other from the saved model, score it."""
    kind = _DEMONSTRATION
    with folders.output_folder(output, kind, overwrite=overwrite, keep=kind.keep) as folder:
        for seed, name in enumerate(("train.npz", "test.npz"), start=1):
            simulate_run(SimulationConfig(rows=_SIDE, cols=_SIDE, seed=seed), folder / name, monitor=monitor)
        trained = train_run(
            folder / "train.npz",
            folder / "training",
            run_settings(backend, train={"max_time": max_time}),
            monitor=monitor,
        )
        result = infer_run(trained.folder, folder / "test.npz", folder / "reconstruction", monitor=monitor)
        scores = evaluate_run(
            result.files["product"], folder / "test.npz", scan_path=folder / "test.npz", output=folder / "evaluation"
        )
    files = {**result.files, "model": trained.files["model"], "comparison": folder / "evaluation" / "comparison.png"}
    chosen = ("amp_ssim", "phase_ssim", "amp_corr", "phase_corr", "nrmse")
    figures = {**trained.figures, **result.figures, **{name: scores[name] for name in chosen}}
    return RunResult(folder, files, figures, (*trained.warnings, *result.warnings))
