"""The loss of a batch: `backend_suite.objective`, and of its parts. Requirements: specs/10-training.md."""

from __future__ import annotations

import numpy as np
import pytest
from backend_suite.objective import *  # noqa: F403
from backend_suite.objective import EVERY_TERM, plan_of, unit_probe
from backend_suite.ops import Ops

from ptychopinn.data.dataset import ScanDataset
from ptychopinn_torch.batches import cut, to_tensor


@pytest.mark.parametrize("parts", [2, 3])
def test_cutting_a_batch_changes_nothing(ops: Ops, scan: ScanDataset, parts: int) -> None:
    """[LOSS-006]"""
    plan = plan_of(scan, **{**EVERY_TERM, "batch_size": 3, "simulate_probes": "around"})
    model, objective = ops.build(plan.model, unit_probe(scan), np.zeros(2)), ops.objective(plan)
    tensors = {name: to_tensor(array) for name, array in plan.training.batches.batch(0, 0).items()}
    cuts = cut(tensors, parts)
    assert len(cuts) == parts
    whole, *terms = (objective(model, part).map(ops.array) for part in (tensors, *cuts))
    for name, value in whole.parts.items():
        assert sum(float(part.parts[name]) for part in terms) == pytest.approx(float(value), rel=1e-5, abs=1e-8), name
