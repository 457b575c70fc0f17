"""Train a network for scans that nobody has measured yet."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel

from ptychopinn.bundle import read_bundle, write_bundle
from ptychopinn.config.infer import InferConfig, ProbeSource
from ptychopinn.config.simulation import ObjectKind, ProbeKind, SimulationConfig
from ptychopinn.data.io import write_scan
from ptychopinn.geometry import Frame, flat_object
from ptychopinn.metrics import align, scan_box, score
from ptychopinn.monitor import NULL_MONITOR, Monitor
from ptychopinn.reconstruction import reconstruct
from ptychopinn.simulate import simulate_scan
from ptychopinn.typing import StrPath
from ptychopinn.workflows import folders
from ptychopinn.workflows._backends import load_reconstructor, run_settings
from ptychopinn.workflows._outputs import RunResult
from ptychopinn.workflows._train import train_run

RECORD = "pretraining"
"""Name of the record in the archive's manifest (``extra``)."""
# Seeds and probes of the scans that the scores of the record are of. Networks are not trained on textured objects.
_EXAMINED = ((9001, ProbeKind.DISC), (9002, ProbeKind.DEFOCUSED), (9003, ProbeKind.ANNULAR))
_SHOWN = {"N", "rows", "cols", "seed", "object_kind", "probe_kind", "nphotons"}
_SCORES = ("amp_ssim", "phase_ssim", "nrmse")
# A checkpoint is written after an epoch, so epochs of small batches are short.
_MAX_PATTERNS_AN_EPOCH, _MAX_STEPS_AN_EPOCH = 65536, 256
# Larger patterns take more memory and time, so their batches are smaller.
_NETWORKS: Mapping[int, Mapping[str, Any]] = {
    64: {"iterations": 8, "fine_iterations": 4, "batch_size": 1024, "learning_rate": 3e-3},
    128: {"iterations": 10, "fine_iterations": 3, "batch_size": 512, "learning_rate": 2.5e-3},
    256: {"iterations": 13, "fine_iterations": 3, "batch_size": 256, "learning_rate": 2.5e-3},
}


def pretrain_run(  # noqa: PLR0913
    output: StrPath,
    size: int = 64,
    *,
    seconds: float,
    seed: int = 2026,
    start: StrPath | None = None,
    batch_size: int | None = None,
    backend: str | None = None,
    execution: BaseModel | Mapping[str, object] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    monitor: Monitor = NULL_MONITOR,
) -> RunResult:
    """Train a network on simulated objects under simulated probes alone, for `ptychopinn reconstruct`.

    Every pattern of a batch has a probe of its own; doses are from 0.025 to 2500 photons a pixel. The archive has a
    record of what it was trained on, and of scores on simulated scans that the training did not see.

    Parameters
    ----------
    size:
        N of the patterns: 64, 128 or 256.
    seconds:
        Time of training. A resumed training goes on to so many seconds in all.
    start:
        An installed model, a run directory or an archive, of another size too: the network starts from those of its
        weights that fit. The archive's manifest says so (``started_from``).
    batch_size:
        Patterns in a step of the optimizer; None is that for a card. The learning rate follows its root.

    Raises
    ------
    PtychoPinnError
        If something is refused; raised before any long work.
    """
    network = dict(_NETWORKS[size])
    usual, rate = network.pop("batch_size"), network.pop("learning_rate")
    batch_size = batch_size or usual
    train = {
        "seed": seed,
        "batch_size": batch_size,
        "learning_rate": rate * math.sqrt(batch_size / usual),
        "n_groups": min(_MAX_PATTERNS_AN_EPOCH, _MAX_STEPS_AN_EPOCH * batch_size),
        "max_time": seconds,
        "nepochs": 1_000_000,
    }
    settings = run_settings(
        backend,
        preset="many-scans",
        model={"N": size, "group_size": 1, "n_filters_scale": 0.5, **network},
        train=train,
        reading={},
        execution=execution.model_dump(exclude_unset=True) if isinstance(execution, BaseModel) else execution or {},
    )
    with tempfile.TemporaryDirectory(prefix="ptychopinn-pretrain-") as temporary:
        # Gives N and the detector; neither its object nor its probe is trained on.
        base = Path(temporary) / "base.npz"
        write_scan(base, simulate_scan(SimulationConfig(N=size, rows=8, cols=8, seed=seed)))
        result = train_run(
            base,
            output,
            settings,
            weights_of=start,
            resume=resume,
            overwrite=overwrite,
            only_model=True,
            monitor=monitor,
        )
    archive = Path(output) / folders.MODEL
    figures = record_pretraining(archive, backend=backend)
    return RunResult(result.folder, result.files, {**result.figures, **figures}, result.warnings)


def record_pretraining(archive: Path, *, backend: str | None = None) -> dict[str, float]:
    """Write into an archive what the network was trained on and what it reaches; return the mean scores."""
    bundle = read_bundle(archive)
    size = bundle.manifest.model.N
    scans = [
        SimulationConfig(N=size, rows=15, cols=15, seed=seed, object_kind=ObjectKind.TEXTURED, probe_kind=probe)
        for seed, probe in _EXAMINED
    ]
    reconstructor = load_reconstructor(archive, backend=backend)
    found: list[dict[str, float]] = []
    for config in scans:
        scan = simulate_scan(config)
        assert scan.object_guess is not None
        scores: dict[str, float] = {}
        for passes in (0, 2):
            got = reconstruct(reconstructor, scan, InferConfig(probe_source=ProbeSource.SCAN, refine=passes))
            whole = flat_object(Frame(scan.object_guess.shape))
            Frame(scan.object_guess.shape).paste(whole, got.object, got.frame)
            values = score(align(scan.object_guess, whole, scan_box(scan.positions, whole.shape)))
            scores |= {f"{name}, {passes} passes": float(values[name]) for name in _SCORES}
        found.append(scores)
    means = {name: float(np.mean([scores[name] for scores in found])) for name in found[0]}
    training = bundle.manifest.training
    record = {
        "objects": "drawn by ptychopinn.simulate.object_stream from the seed of the training",
        "probes": "drawn by ptychopinn.simulate.random_probes, one for every pattern",
        "measured_scans": [],
        "seed": None if training is None else training.config.get("seed"),
        "examined": [config.model_dump(mode="json", include=_SHOWN) for config in scans],
        "scores": [{name: round(value, 4) for name, value in scores.items()} for scores in found],
    }
    manifest = bundle.manifest.model_copy(update={"extra": {**bundle.manifest.extra, RECORD: record}})
    write_bundle(archive, manifest, bundle.weights)
    return means
