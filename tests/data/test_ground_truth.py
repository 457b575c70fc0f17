"""Known patches of a scan: where they are cut and how they are scaled."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ptychopinn.config import SimulationConfig
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.ground_truth import TruthPatches
from ptychopinn.data.scaling import fit_scaling, probe_in_counts
from ptychopinn.errors import DataError
from ptychopinn.forward import intensity
from ptychopinn.simulate import simulate_scan, true_patches
from ptychopinn.typing import ComplexArray

N, SIZE = 32, 16


@pytest.fixture(scope="module")
def scan() -> ScanDataset:
    return simulate_scan(SimulationConfig(N=N, rows=4, cols=4, seed=2, object_kind="letter", write_patches=True))


def truth_of(scan: ScanDataset, size: int = SIZE) -> TruthPatches:
    return TruthPatches(scan, probe_of(scan), fit_scaling(scan).mean_counts, size)


def probe_of(scan: ScanDataset) -> ComplexArray:
    return probe_in_counts(scan, fit_scaling(scan), follow_offset=False)


def up_to_scale(a: ComplexArray, b: ComplexArray) -> float:
    """Relative difference after one real factor."""
    factor = np.vdot(a, b).real / np.vdot(a, a).real
    return float(np.linalg.norm(factor * a - b) / np.linalg.norm(b))


def test_patches_are_the_object_at_the_positions(scan: ScanDataset) -> None:
    """Upright, centred on fractional positions: the object is an F that no turn leaves the same."""
    chosen = np.array([5, 0, 10])
    found = truth_of(replace(scan, patches_guess=None))(chosen)
    assert (found.shape, found.dtype) == ((3, SIZE, SIZE), np.complex64)
    assert scan.object_guess is not None
    expected = true_patches(scan.object_guess, scan.positions[chosen], SIZE)
    assert up_to_scale(found, expected) < 0.01
    assert up_to_scale(found.transpose(0, 2, 1), expected) > 0.1


def test_known_patches_go_before_the_object(scan: ScanDataset) -> None:
    marked = replace(scan, patches_guess=np.asarray(scan.patches_guess) * np.exp(1j))
    with_patches = truth_of(marked)(np.array([5]))
    with_object = truth_of(replace(scan, patches_guess=None))(np.array([5]))
    assert up_to_scale(with_patches, with_object * np.complex64(np.exp(1j))) < 0.01
    whole = truth_of(marked, N)(np.array([5]))
    np.testing.assert_array_equal(with_patches, whole[:, 8:24, 8:24])


@pytest.mark.parametrize("factor", [1.0, 30.0])
def test_the_scale_is_that_of_the_physics(scan: ScanDataset, factor: float) -> None:
    """An object in whatever unit: with the probe in counts, its patches give the mean counts."""
    assert scan.object_guess is not None
    scaled = replace(scan, object_guess=scan.object_guess * factor, patches_guess=None)
    patches = truth_of(scaled, N)(np.arange(16))
    expected = intensity(probe_of(scan)[None] * patches[:, None]).sum(axis=(1, 2)).mean()
    assert expected == pytest.approx(fit_scaling(scan).mean_counts, rel=0.01)


def test_what_a_beam_stop_hides_does_not_dim_the_truth(scan: ScanDataset) -> None:
    """[DATA-092] The probe has its energy on good pixels; so have the truth's patterns."""
    y, x = np.indices((N, N)) - N // 2
    stopped = replace(scan, bad_pixels=np.hypot(y, x) < 2.5, scaling=None)
    assert intensity(scan.probe[None])[0][stopped.bad_pixels].sum() > 0.5 * intensity(scan.probe[None]).sum()
    patches = truth_of(stopped, N)(np.arange(16))
    expected = intensity(probe_of(stopped)[None] * patches[:, None])
    seen = expected[:, ~stopped.bad_pixels].sum(axis=1).mean()
    assert seen == pytest.approx(fit_scaling(stopped).mean_counts, rel=0.01)


def test_no_known_object_is_refused(scan: ScanDataset) -> None:
    with pytest.raises(DataError, match="neither objectGuess nor Y.*--model-type pinn"):
        truth_of(replace(scan, object_guess=None, patches_guess=None))


@pytest.mark.parametrize("constant", [1, 0.3 - 2j])
def test_a_constant_object_is_refused(scan: ScanDataset, constant: complex) -> None:
    """Exported scans carry ones."""
    assert scan.object_guess is not None
    placeholder = np.full(scan.object_guess.shape, constant, np.complex64)
    with pytest.raises(DataError, match="constant .*: a placeholder, not a known object"):
        truth_of(replace(scan, object_guess=placeholder, patches_guess=None))
    with pytest.raises(DataError, match="placeholder"):
        truth_of(replace(scan, patches_guess=np.full((16, N, N), constant, np.complex64)))


def test_a_weak_object_is_no_placeholder(scan: ScanDataset) -> None:
    assert scan.object_guess is not None
    weak = np.exp(0.02 * (scan.object_guess - 1)).astype(np.complex64)
    truth_of(replace(scan, object_guess=weak, patches_guess=None))
