"""Another scan is reconstructed than was trained on: larger, and batched in other sizes.

Requirements: specs/04-stitching.md, specs/07-reconstructor.md. A backend whose options change how it predicts overrides
the fixture ``options``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backend_suite.fits import Fits, Trained, patches_of
from ptychopinn.config import InferConfig, SimulationConfig
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.reconstruction import reconstruct
from ptychopinn.simulate import simulate_scan

ROWS, COLUMNS = 71, 107
COUNT = ROWS * COLUMNS  # 7,597 patterns


@pytest.fixture(scope="module")
def options() -> dict[str, Any]:
    """Options of the backend."""
    return {}


@pytest.fixture(scope="module")
def large() -> ScanDataset:
    """Another object, seen 7,597 times."""
    return simulate_scan(SimulationConfig(N=32, rows=ROWS, cols=COLUMNS, seed=2))


@pytest.fixture(scope="module")
def evaluated(fits: Fits, options: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Trained for one epoch on 32 groups of 2 x 2 out of 64 patterns, then saved and loaded."""
    small = simulate_scan(SimulationConfig(N=32, rows=8, cols=8, seed=1))
    train = {"nepochs": 1, "n_groups": 32, "batch_size": 4, "neighbor_count": 7}
    trained: Trained = fits.fit_to(small, model={"gridsize": 2}, train=train, options=options)
    assert trained.result.patterns_seen == 32 * 4
    path: Path = tmp_path_factory.mktemp("model") / "wts.h5.zip"
    trained.reconstructor.save(path)
    return fits.cls.load(path, fits.options(**{"accelerator": "cpu", **options}))


def test_every_pattern_of_another_scan_is_predicted_once(evaluated: Any, large: ScanDataset) -> None:
    """[REC-005] [REC-006] Alike in batches that do not divide it, in the batches of the training, and in one."""
    first = patches_of(evaluated, large)
    assert first.shape == (COUNT, 16, 16)
    assert np.isfinite(first).all()
    for size in (16, 1000, COUNT):
        batches = list(evaluated.infer(large, InferConfig(inference_batch_size=size)).batches)
        assert {len(batch.indices) for batch in batches[:-1]} <= {size}
        assert [i for batch in batches for i in batch.indices.tolist()] == list(range(COUNT))
        np.testing.assert_allclose(np.concatenate([batch.patches for batch in batches]), first, atol=1e-5)


def test_every_pattern_of_another_scan_is_placed(evaluated: Any, large: ScanDataset) -> None:
    """[RECON-001] [STITCH-004] None dropped, and the same picture whatever the batch size."""
    one, other = (
        reconstruct(evaluated, large, InferConfig(inference_batch_size=size, refine=0)) for size in (64, 1000)
    )
    for found in (one, other):
        assert (found.placed, found.dropped) == (COUNT, 0)
    assert large.object_guess is not None
    assert one.object.shape == large.object_guess.shape
    assert one.synchronised == other.synchronised
    np.testing.assert_allclose(other.coverage, one.coverage, rtol=1e-5)
    np.testing.assert_allclose(other.object, one.object, atol=1e-3)
