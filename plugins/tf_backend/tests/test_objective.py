"""The loss of a batch: `backend_suite.objective`, and of shards. Requirements: specs/10-training.md."""

from __future__ import annotations

import numpy as np
import pytest
from backend_suite.objective import *  # noqa: F403
from backend_suite.objective import EVERY_TERM, plan_of, unit_probe
from backend_suite.ops import Ops

from ptychopinn.data.dataset import ScanDataset
from ptychopinn_tf.batches import cut, to_tensors


@pytest.mark.parametrize(("groups", "shares"), [(5, 1), (2, 2), (3, 2), (2, 3)])
def test_filling_up_and_splitting_change_nothing(ops: Ops, off_centre: ScanDataset, groups: int, shares: int) -> None:
    """[LOSS-006] The last batch of an epoch has one group; processes share a batch, unevenly too."""
    plan = plan_of(off_centre, **EVERY_TERM)
    model, objective = ops.build(plan.model, unit_probe(off_centre), np.zeros(2)), ops.objective(plan)
    for arrays in plan.training.batches(0):
        whole = objective(model, to_tensors(arrays, len(arrays["counts"])))
        parts = [objective(model, part) for part in cut(to_tensors(arrays, groups), shares)]
        assert len(parts) == shares
        for name, value in whole.parts.items():
            assert sum(float(p.parts[name]) for p in parts) == pytest.approx(float(value), rel=1e-5, abs=1e-8), name
        assert len(whole.products) == 2
        for k, expected in enumerate(whole.products):
            products = sum(np.asarray(p.products[k]) for p in parts)
            np.testing.assert_allclose(products, expected, rtol=1e-4, atol=1e-2)
