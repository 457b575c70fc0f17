"""What Ptychodus hands over and gets back (specs/12-ptychodus.md)."""

from __future__ import annotations

import logging
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ptychodus", reason="Ptychodus is not installed")

from bridge_scans import CENTER_M, PIXEL_M, as_uint16, make_input, make_product, simulated
from ptychodus.api.io import save_product
from ptychodus.api.probe import ProbeSequence
from ptychodus.api.reconstruct import ReconstructInput

from ptychopinn.data.sizes import place_centred, resample_placed, resample_probe
from ptychopinn.errors import DataError
from ptychopinn.forward import expected_counts
from ptychopinn.probe_variation import ProbeVariation
from ptychopinn.product import Product
from ptychopinn_ptychodus.conversion import object_scales, output_product, positions_px, scan_of


def test_scan_explains_its_own_patterns() -> None:
    """[PTY-040] Pixels, axes and frame agree: the forward model with the handed-over object predicts the counts."""
    scan = simulated(size=64, nphotons=1e7)
    found = scan_of(make_input(scan, patterns=np.asarray(scan.patterns)), with_object=True)
    assert found.object_guess is not None
    predicted = expected_counts(found.object_guess, found.probe, found.positions)
    measured = found.counts(slice(None))
    assert np.linalg.norm(np.sqrt(predicted) - np.sqrt(measured)) / np.linalg.norm(np.sqrt(measured)) < 0.03
    np.testing.assert_allclose(found.positions, scan.positions, atol=1e-6)
    shifted = expected_counts(found.object_guess, found.probe, found.positions + 0.5)
    assert np.linalg.norm(shifted - measured) > 2 * np.linalg.norm(predicted - measured)


def test_counts_keep_their_type_and_bad_pixels() -> None:
    """[PTY-041] uint16 counts and bad pixels go through as they are."""
    scan = simulated()
    bad = np.zeros((32, 32), bool)
    bad[3, 4] = True
    patterns = as_uint16(scan)
    patterns[:, 3, 4] = 65535
    found = scan_of(make_input(scan, patterns=patterns, bad=bad), with_object=False)
    assert found.patterns.dtype == np.uint16
    assert found.bad_pixels.sum() == 1
    assert found.counts(slice(0, 1))[0, 3, 4] == 0
    assert found.object_guess is None


def test_probe_modes_opr_and_layers(caplog: pytest.LogCaptureFixture) -> None:
    """[PTY-042] All modes are used, OPR modes as mean and variation; layers are multiplied, which is logged."""
    scan = simulated(probe_modes=2)
    opr = np.stack([scan.probe, 0.1 * scan.probe])
    layers = np.stack([scan.object_guess, np.full_like(scan.object_guess, 0.5j)])
    with caplog.at_level(logging.WARNING):
        found = scan_of(make_input(scan, probe=opr, obj=layers), with_object=True)
        given = make_input(scan, probe=opr)
        weights = np.stack([np.ones(len(scan)), np.linspace(0, 2, len(scan))], axis=1)
        varying = ProbeSequence(opr.astype(complex), weights, given.product.probes.get_pixel_geometry())
        mean = scan_of(replace(given, product=replace(given.product, probes=varying)), with_object=False)
    np.testing.assert_allclose(found.probe, scan.probe, rtol=1e-6)
    np.testing.assert_allclose(mean.probe[0], 1.1 * scan.probe[0], rtol=1e-5)
    assert mean.probe_variation is not None
    np.testing.assert_allclose(mean.probe_variation.weights[:, 0], np.linspace(-1, 1, len(scan)), atol=1e-6)
    np.testing.assert_allclose(mean.probe_variation.modes, opr[1:, 0], rtol=1e-6)
    assert found.object_guess is not None
    np.testing.assert_allclose(found.object_guess, 0.5j * scan.object_guess, rtol=1e-5)
    assert "2 OPR modes" in caplog.text
    assert "2 layers" in caplog.text


def test_what_cannot_be_used_is_refused_in_words() -> None:
    """[PTY-043] A probe of another size, and no probe are refused with the remedy."""
    scan = simulated()
    patterns = as_uint16(scan)
    with pytest.raises(DataError, match="probe has the shape"):
        scan_of(make_input(scan, probe=scan.probe[:, 2:-2, 2:-2]), with_object=False)
    with pytest.raises(DataError, match="no probe"):
        scan_of(make_input(scan, probe=np.zeros_like(scan.probe)), with_object=False)
    with pytest.raises(DataError, match="36 patterns and 35 positions|35 patterns and 36 positions"):
        scan_of(make_input(scan, patterns=patterns[1:]), with_object=False)


PROBE = np.full((1, 32, 32), 3 + 1j, np.complex64)


def found_of(given: Any, obj: Any, origin: tuple[int, int], moved: Any = 0, **more: Any) -> Any:
    """The product of a reconstruction whose positions moved so many pixels."""
    return Product("found", positions_px(given.product) + moved, PROBE, obj, origin, **more)


def test_positions_and_flux_of_the_output_are_those_of_the_reconstruction() -> None:
    """[PTY-044] Moved ones, and the weights of the probe."""
    scan = simulated()
    given = make_input(scan)
    moved = np.random.default_rng(2).normal(size=scan.positions.shape)
    flux = np.linspace(0.5, 1.5, len(scan)).astype(np.float32)
    obj = np.ones((90, 90), np.complex64)
    product = output_product(given, found_of(given, obj, (0, 0), moved - np.median(moved, axis=0), flux=flux), [])
    # pixel (0, 0) of the object is that of the input
    expected = positions_px(given.product) + moved - np.median(moved, axis=0)
    np.testing.assert_allclose(positions_px(product), expected, atol=1e-6)
    np.testing.assert_allclose(product.probes.get_opr_weights()[:, 0], np.sqrt(flux))
    rng = np.random.default_rng(0)
    modes, weights = rng.normal(size=(2, 32, 32)).astype(np.complex64), rng.normal(size=(len(scan), 2))
    varying = found_of(given, obj, (0, 0), flux=flux, variation=ProbeVariation(modes, weights.astype(np.float32)))
    for number, probe in enumerate(output_product(given, varying, []).probes):
        own = np.sqrt(flux[number]) * (PROBE[0] + np.tensordot(weights[number], modes, axes=1))
        np.testing.assert_allclose(probe.get_array()[0], own, rtol=1e-4)
    assert [point.index for point in product.probe_positions] == list(range(len(scan)))


@pytest.mark.parametrize(
    ("origin", "shape"), [((10, 12), (20, 30)), ((-7, -3), (100, 90)), ((-4, 5), (30, 200))], ids=str
)
def test_output_lies_where_it_belongs(origin: tuple[int, int], shape: tuple[int, int]) -> None:
    """[PTY-044] Centre and pixel size of the output put every position onto the same feature; the rest is kept."""
    scan = simulated()
    given = make_input(scan)
    rng = np.random.default_rng(1)
    result = (rng.random(shape) + 1j).astype(np.complex64)
    product = output_product(given, found_of(given, result, origin), [(1, 0.5), (2, 0.25)])
    before, after = positions_px(given.product), positions_px(product)
    shift = after - before  # pixel (0, 0) of the input's frame in the output's
    np.testing.assert_allclose(shift, np.broadcast_to(np.round(shift[0]), shift.shape), atol=1e-6)
    y, x = np.round(shift[0]).astype(int) + origin
    array = product.object_.get_array()[0]
    np.testing.assert_array_equal(array[y : y + shape[0], x : x + shape[1]], result)
    rest = array.copy()
    rest[y : y + shape[0], x : x + shape[1]] = 1
    assert (rest == 1).all()
    pixel = product.object_.get_pixel_geometry()
    assert (pixel.height_m, pixel.width_m) == PIXEL_M
    assert product.metadata is given.product.metadata
    np.testing.assert_array_equal(product.probes.get_array()[0], PROBE)  # that of the reconstruction
    assert product.probes.get_opr_weights_or_none() is None
    assert product.probe_positions is given.product.probe_positions
    assert [(loss.epoch, loss.value) for loss in product.losses] == [(1, 0.5), (2, 0.25)]


@pytest.mark.parametrize("shape", [(50, 50), (48, 44), (33, 33)], ids=str)
def test_patterns_of_any_size_go_there_and_back(shape: tuple[int, int]) -> None:
    """[PTY-070] Fitted to a size that networks take; the object that explains them comes back on Ptychodus's pixels."""
    whole = simulated(size=64, nphotons=1e7)
    counts = np.asarray(whole.patterns)
    down = tuple(n / 64 for n in shape)
    obj, origin = resample_placed(whole.object_guess, (0, 0), down)
    assert origin == (0, 0)
    pixel = tuple(side / factor for side, factor in zip(PIXEL_M, down, strict=True))
    product = make_product(whole.positions * np.array(down), resample_probe(whole.probe, shape), obj, pixel_m=pixel)
    given = ReconstructInput(place_centred(counts, shape), np.zeros(shape, bool), product)
    data = scan_of(given, with_object=True)
    assert data.N in (32, 64)
    assert data.object_guess is not None
    predicted = expected_counts(data.object_guess, data.probe, data.positions)[:, ~data.bad_pixels]
    measured = data.counts(slice(None))[:, ~data.bad_pixels]
    assert np.linalg.norm(np.sqrt(predicted) - np.sqrt(measured)) / np.linalg.norm(np.sqrt(measured)) < 0.1
    up = object_scales(given, data)
    assert up == pytest.approx((data.N / shape[0], data.N / shape[1]))
    back, at = resample_placed(data.object_guess, (0, 0), (1 / up[0], 1 / up[1]))
    assert at == (0, 0)
    same = tuple(slice(5, min(a, b) - 5) for a, b in zip(back.shape, obj.shape, strict=True))
    assert np.abs(back[same] - obj[same]).mean() < 0.04


def test_output_inside_keeps_the_frame() -> None:
    """[PTY-044] A result inside the input's object leaves size and centre as they are."""
    scan = simulated()
    given = make_input(scan)
    product = output_product(given, found_of(given, np.full((5, 6), 2j, np.complex64), (3, 4)), [])
    assert product.object_.get_array().shape[1:] == scan.object_guess.shape
    center = product.object_.get_center()
    assert (center.y_m, center.x_m) == CENTER_M


def test_pixels_that_disagree_are_refused() -> None:
    """[PTY-043] A probe sampled otherwise than the object is refused."""
    scan = simulated()
    given = make_input(scan)
    other = make_product(scan.positions, scan.probe, scan.object_guess, pixel_m=(3e-8, 3e-8))
    from ptychodus.api.product import Product as Theirs

    mixed = Theirs(given.product.metadata, given.product.probe_positions, other.probes, given.product.object_, [])
    with pytest.raises(DataError, match="Resample"):
        scan_of(ReconstructInput(given.diffraction_patterns, given.bad_pixels, mixed), with_object=False)


_CROPPED = """
import logging
from pathlib import Path
import numpy as np
from ptychodus.api.diffraction import CropRegion
from ptychodus.model.core import ModelCore
from ptychopinn.forward import expected_counts
from ptychopinn_ptychodus.conversion import scan_of
with ModelCore(None, log_level=logging.ERROR) as model:
    raw = model.workflow_api.load_diffraction_data(
        Path("raw.npy"), file_type="NPY", crop_region=CropRegion(x_range=(11, 43), y_range=(7, 39)), block=True
    )
    product = model.workflow_api.load_product(Path("product.h5"), diffraction=raw)
    scan = scan_of(product.get_reconstruct_input(), with_object=True)
measured = np.sqrt(scan.counts(slice(None)))
residual = np.sqrt(expected_counts(scan.object_guess, scan.probe, scan.positions)) - measured
print(len(scan), np.linalg.norm(residual) / np.linalg.norm(measured))
"""


def test_patterns_that_ptychodus_crops(environment: dict[str, str], tmp_path: Path) -> None:
    """[PTY-040] Larger frames that are not square, cropped on loading: the forward model predicts their counts."""
    scan = simulated(nphotons=1e7)
    frames = np.zeros((len(scan), 48, 60), np.uint32)
    frames[:, 7:39, 11:43] = scan.patterns
    np.save(tmp_path / "raw.npy", frames)
    save_product(tmp_path / "product.h5", make_product(scan.positions, scan.probe, scan.object_guess))
    done = subprocess.run(
        [sys.executable, "-P", "-c", _CROPPED],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    patterns, residual = done.stdout.split()[-2:]
    assert int(patterns) == len(scan)
    assert float(residual) < 0.02
