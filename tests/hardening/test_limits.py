"""Too little memory, processes that end, and the same numbers twice. Requirements: specs/16-hardening.md."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from hardening.kit.job_runner import Ending, JobRunner, outcome
from hardening.kit.mutation import mutate_json
from hardening.kit.pool import environment

from ptychopinn.bundle import read_bundle
from ptychopinn.config import SimulationConfig
from ptychopinn.data.io import write_scan
from ptychopinn.product import read_product
from ptychopinn.simulate import simulate_scan

RESOURCE, MIB = 4, 1 << 20
LOADS = (12, 200)  # short, long


@pytest.fixture(scope="session")
def large_scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1,600 patterns of 32 x 32."""
    path = tmp_path_factory.mktemp("large") / "scan.npz"
    write_scan(path, simulate_scan(SimulationConfig(N=32, rows=40, cols=40, seed=1)))
    return path


def infer(jobs: JobRunner, folder: Path, scan: Path, model: Path, memory_bytes: int | None) -> Ending:
    settings = {"model": str(model), "infer": {"inference_batch_size": 1600, "refine": 0, "synchronise": "off"}}
    return jobs.run("infer", folder, scan, settings=settings, memory_bytes=memory_bytes)


def test_a_prediction_under_any_limit(
    jobs: JobRunner,
    trained: Path,
    large_scan: Path,
    long: bool,
    figure: Callable[[str], None],
    tmp_path: Path,
) -> None:
    """[HARD-020] made or refused: whatever the limit, nothing else comes of it.

    On the CPU a backend may compute a batch in parts so small that other work runs out of memory sooner; then nothing
    is ever halved here. That a batch is halved when it must be is tests/test_batched_inference.py's to see.
    """
    assert infer(jobs, tmp_path / "plain", large_scan, trained, None).status == 0
    whole = read_product(tmp_path / "plain" / "run" / "reconstruction.h5").object
    made, halved, refused = [], [], []
    for mebibytes in (1, *range(100, 400, 20), *range(105, 400, 8)):
        folder = tmp_path / str(mebibytes)
        ending = infer(jobs, folder, large_scan, trained, mebibytes * MIB)
        if ending.status:
            assert (ending.status, ending.told["error"]) == (RESOURCE, "ResourceError"), ending
            assert ending.told["remedy"]
            refused.append(mebibytes)
            assert not (folder / "run").exists()
            continue
        found = read_product(folder / "run" / "reconstruction.h5").object
        np.testing.assert_allclose(found, whole, atol=2e-4)
        if "does not fit into memory; continuing with" in (folder / "run" / "run.log").read_text():
            halved.append(mebibytes)
        made.append(mebibytes)
        if len(made) == (10 if long else 2):  # from here on all of it fits
            break
    assert refused, "1 MiB was enough"
    assert made, "400 MiB were not enough"
    figure(f"memory of a prediction: {refused} MiB refused, {made} MiB enough, {halved} MiB with batches halved")


def test_training_with_too_little_memory_is_told(jobs: JobRunner, scan: Path, tmp_path: Path) -> None:
    """[HARD-021]"""
    for mebibytes in (1, 40):
        ending = jobs.run("train", tmp_path / str(mebibytes), scan, memory_bytes=mebibytes * MIB)
        if ending.status:
            assert (ending.status, ending.told["error"]) == (RESOURCE, "ResourceError"), ending
            assert ending.told["remedy"]
    assert jobs.run("train", tmp_path / "1", scan, memory_bytes=MIB).status == RESOURCE


def test_loading_a_model_that_claims_to_be_another(
    jobs: JobRunner, trained: Path, scan: Path, long: bool, figure: Callable[[str], None], tmp_path: Path
) -> None:
    """[HARD-001] [HARD-002] However large its network would be."""
    rng = random.Random(15)
    bundle = read_bundle(trained / "wts.h5.zip")
    text = bundle.manifest.model.model_dump_json()
    outcomes: dict[str, int] = {}
    for _ in range(LOADS[long]):
        changed = mutate_json(rng, text)
        ending = jobs.run(
            "load", tmp_path, scan, settings={"model": changed, "source": str(trained)}, memory_bytes=512 * MIB
        )
        name = ending.told.get("error", "loaded")
        assert ending.status in (0, 1, 2, 3), (changed[:500], ending)
        assert ending.seconds < 30
        outcomes[name] = outcomes.get(name, 0) + 1
    counts = ", ".join(f"{count} {name}" for name, count in sorted(outcomes.items()))
    figure(f"models that claim another configuration: {LOADS[long]}: {counts}")


@pytest.mark.parametrize("backend", ["torch", "tf"])
def test_the_same_seed_gives_the_same_bits(
    backend: str, scan: Path, figure: Callable[[str], None], tmp_path: Path
) -> None:
    """[HARD-050] in two processes."""
    framework = {"torch": "torch", "tf": "tensorflow"}[backend]
    if find_spec(framework) is None or find_spec(f"ptychopinn_{backend}") is None:
        pytest.skip(f"{framework} or its backend is not installed")
    (tmp_path / "config.json").write_text(
        json.dumps(
            {
                "backend": backend,
                "model": {"n_filters_scale": 0.25, "group_size": 4, "iterations": 1},
                "train": {"nepochs": 3, "seed": 5, "probe_refinement": 1},
                "infer": {"refine": 1},
                "execution": {"accelerator": "cpu"},
            }
        )
    )
    for name in ("one", "two"):
        command = ["train", str(scan), "-o", str(tmp_path / name), "--config", str(tmp_path / "config.json"), "--quiet"]
        code = "import sys; from ptychopinn.cli import main; sys.exit(main())"
        subprocess.run([sys.executable, "-c", code, *command], check=True, env=environment(), timeout=300)
    (one, weights), (two, others) = (outcome(tmp_path / name) for name in ("one", "two"))
    assert one == two
    assert len(weights) > 3
    assert all(np.array_equal(weights[name], others[name]) for name in weights)
    objects = [read_product(tmp_path / name / "reconstruction.h5").object for name in ("one", "two")]
    np.testing.assert_array_equal(*objects)
    shutil.rmtree(tmp_path)
    figure(
        f"the same seed twice, {backend}: {len(weights)} tensors, the history and the object are the same, bit by bit"
    )
