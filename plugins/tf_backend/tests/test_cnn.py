"""The published network: what is TensorFlow's own; the rest is `backend_suite.cnn`."""

from __future__ import annotations

import numpy as np
import pytest
from backend_suite.cnn import *  # noqa: F403
from backend_suite.cnn import CNN
from backend_suite.fits import Fit

from ptychopinn.data.dataset import ScanDataset


def test_compiled_by_xla_it_computes_the_same(fit: Fit, scan: ScanDataset) -> None:
    """Deterministically, as is the default."""
    model = {**CNN, "n_filters_scale": 0.1, "probe_big": True}
    plain, compiled = (fit(model=model, options={"xla": xla}) for xla in (False, True))
    assert compiled.result.history["loss"] == pytest.approx(plain.result.history["loss"], rel=1e-4)
    np.testing.assert_allclose(compiled.patches(scan), plain.patches(scan), atol=1e-3)
