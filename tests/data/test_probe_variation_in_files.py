"""Probes that vary over a scan or have several modes, in files and conversions. Requirements: specs 01 and 24."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import scan_formats
import scipy.io

from ptychopinn.arrays import NUMPY
from ptychopinn.config.conversion import ConversionOptions
from ptychopinn.data.convert import read_converted
from ptychopinn.data.cxi_writer import write_cxi_scan
from ptychopinn.data.dataset import Measurement, ScanDataset
from ptychopinn.data.fingerprint import fingerprint
from ptychopinn.data.from_arrays import mend_scan
from ptychopinn.data.io import read_scan, write_scan
from ptychopinn.data.scaling import fit_scaling, probe_in_counts, varying_probe_in_counts
from ptychopinn.errors import DataError
from ptychopinn.probe_variation import ProbeVariation, to_opr
from ptychopinn.typing import ComplexArray

N = 32
EXAMPLE = scan_formats.example()
COUNT = len(EXAMPLE.counts)
RNG = np.random.default_rng(0)
TILTED = EXAMPLE.probe * np.linspace(-1, 1, N)[:, None]  # not its own mirror image
WEIGHTS = RNG.normal(size=(COUNT, 2)).astype(np.float32)
WEIGHTS -= WEIGHTS.mean(axis=0)
VARIATION = ProbeVariation(
    np.concatenate([0.3 * TILTED, 0.2j * np.flip(EXAMPLE.probe, 2) * np.linspace(0, 1, N)]).astype(np.complex64),
    WEIGHTS - WEIGHTS.mean(axis=0),
)


def scan_of(variation: ProbeVariation | None = VARIATION) -> ScanDataset:
    return ScanDataset(
        patterns=EXAMPLE.counts,
        measurement=Measurement.COUNTS,
        positions=EXAMPLE.positions,
        probe=EXAMPLE.probe,
        probe_variation=variation,
    )


def probes_of(data: ScanDataset) -> ComplexArray:
    """(n, N, N): the first mode of every pattern's probe."""
    assert data.probe_variation is not None
    varied = np.tensordot(data.probe_variation.weights, data.probe_variation.modes, axes=1)
    probes: ComplexArray = data.probe[0] + varied
    return probes


def assert_same_variation(found: ScanDataset, expected: ProbeVariation = VARIATION) -> None:
    assert found.probe_variation is not None
    np.testing.assert_array_equal(found.probe_variation.modes, expected.modes)
    np.testing.assert_array_equal(found.probe_variation.weights, expected.weights)


@pytest.mark.parametrize("write", [write_scan, lambda path, data: write_cxi_scan(path.with_suffix(".cxi"), data)])
def test_a_variation_written_is_read_exactly(write: Callable[[Path, ScanDataset], None], tmp_path: Path) -> None:
    """[DATA-140] [DATA-141] And again, after the checks of arrays."""
    write(tmp_path / "scan.npz", mend_scan(scan_of()))
    (path,) = tmp_path.iterdir()
    found = read_scan(path)
    np.testing.assert_array_equal(found.probe, EXAMPLE.probe)
    assert_same_variation(found)
    assert_same_variation(read_converted([path]))


@pytest.mark.parametrize("given", ["product", "cxi"])
def test_opr_weights_of_ptychodus_are_read(given: str, tmp_path: Path) -> None:
    """[DATA-200] Exactly; with other weights of the first mode about the mean, and matched by index."""
    opr, weights = to_opr(EXAMPLE.probe, VARIATION)
    assert weights is not None
    if given == "cxi":
        path = product = scan_formats.cxi(tmp_path / "scan.cxi", EXAMPLE)
        names = ("entry_1/image_1/data", "entry_1/ptychodus/opr_weights")
    else:
        path = scan_formats.FORMATS["ptychodus"][1](tmp_path / "diffraction.h5", EXAMPLE)
        product, names = path.with_name("product.h5"), ("probe", "opr_weights")
    order = np.arange(COUNT)
    if given == "product":
        with h5py.File(path) as file, h5py.File(product) as other_file:
            order = np.searchsorted(file["indexes"][()], other_file["probe_position_indexes"][()])
        assert (order != np.arange(COUNT)).any()
    with h5py.File(product, "r+") as file:
        del file[names[0]]
        file[names[0]], file[names[1]] = opr, weights[order]
    found = read_scan(path)
    np.testing.assert_array_equal(found.probe, EXAMPLE.probe)
    assert_same_variation(found)
    other = weights + np.float32([0.5, 1, 0])
    with h5py.File(product, "r+") as file:
        file[names[1]][...] = other[order]
    found, expected = read_scan(path), np.tensordot(other, opr[:, 0], axes=1)
    np.testing.assert_allclose(probes_of(found), expected, atol=1e-5 * np.abs(expected).max())
    np.testing.assert_allclose(found.probe[0], expected.mean(axis=0), atol=1e-5 * np.abs(expected).max())


def test_weights_stay_with_their_patterns(tmp_path: Path) -> None:
    """[DATA-140] In selections, with a stride, in a region, and where patterns are left out."""
    index = np.array([5, 2, 9])
    assert_same_variation(scan_of().select(index), VARIATION.select(index))
    path = tmp_path / "scan.npz"
    write_scan(path, scan_of())
    every = read_converted([path], None, ConversionOptions(stride=3))
    np.testing.assert_array_equal(probes_of(every), probes_of(scan_of())[::3])
    y = EXAMPLE.positions[:, 0]
    region = read_converted([path], None, ConversionOptions(region=(0.0, float(np.median(y)), 0.0, 1e4)))
    np.testing.assert_array_equal(probes_of(region), probes_of(scan_of())[y <= np.median(y)])
    dead = EXAMPLE.counts.copy()
    dead[4] = 0
    np.testing.assert_array_equal(
        probes_of(mend_scan(replace(scan_of(), patterns=dead))), np.delete(probes_of(scan_of()), 4, axis=0)
    )
    assert fingerprint(scan_of()) != fingerprint(scan_of(None))


@pytest.mark.parametrize(
    "options",
    [{"transpose": True}, {"flip_y": True, "rotate": 1}, {"conjugate_probe": True}, {"resize": 64}, {"bin": 2}],
)
def test_modes_change_as_the_probe_does(options: dict[str, bool | int], tmp_path: Path) -> None:
    """[DATA-140] The probes of the patterns are those that a conversion makes of each."""
    path = tmp_path / "scan.npz"
    write_scan(path, scan_of())
    found = read_converted([path], None, ConversionOptions(**options))  # type: ignore[arg-type]
    for number in (0, 7):
        write_scan(path, replace(scan_of(None), probe=probes_of(scan_of())[number][None]))
        one = read_converted([path], None, ConversionOptions(**options))  # type: ignore[arg-type]
        np.testing.assert_allclose(
            probes_of(found)[number], one.probe[0], atol=1e-4 * np.abs(EXAMPLE.probe).max(), err_msg=str(number)
        )


def test_another_probe_and_other_scans_have_no_variation(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """[DATA-140] Where scans are joined it is said."""
    path = tmp_path / "scan.npz"
    write_scan(path, scan_of())
    assert read_scan(path, probe="mean").probe_variation is None
    with caplog.at_level(logging.WARNING):
        assert read_converted([path, path]).probe_variation is None
    assert "scans joined have the mean probe of the first" in caplog.text


@pytest.mark.parametrize(
    "wrong",
    [
        replace(VARIATION, weights=WEIGHTS[1:]),
        replace(VARIATION, weights=WEIGHTS * np.nan),
        replace(VARIATION, modes=VARIATION.modes[:, 1:]),
        replace(VARIATION, modes=VARIATION.modes[:1]),
    ],
)
def test_a_variation_that_does_not_fit_is_refused(wrong: ProbeVariation, tmp_path: Path) -> None:
    """[DATA-141] In arrays, and in files."""
    with pytest.raises(DataError, match="variation of the probe has"):
        scan_of(wrong)
    path = tmp_path / "scan.npz"
    np.savez(
        path,
        diff3d=EXAMPLE.counts,
        probeGuess=EXAMPLE.probe,
        ycoords=EXAMPLE.positions[:, 0],
        xcoords=EXAMPLE.positions[:, 1],
        probe_variation=wrong.modes,
        probe_variation_weights=wrong.weights,
    )
    with pytest.raises(DataError, match="variation of the probe has"):
        read_scan(path)


def test_probe_and_variation_have_the_counts_of_the_patterns() -> None:
    """[DATA-142] With the factor of the given probe; another probe has no variation."""
    data = scan_of()
    own = probe_in_counts(data, fit_scaling(data), follow_offset=False)
    for factor in (1, 2j):
        probe, variation = varying_probe_in_counts(data, np.complex64(factor) * own)
        assert variation is not None
        varied = probe[0] + np.tensordot(variation.weights, NUMPY.to_host(variation.modes), axes=1)
        energy = (np.abs(varied) ** 2).sum(axis=(1, 2)).mean()
        assert energy == pytest.approx(float((np.abs(factor * own) ** 2).sum()), rel=1e-4)
        ratio = np.vdot(probes_of(data), varied) / np.vdot(probes_of(data), probes_of(data))
        np.testing.assert_allclose(varied, ratio * probes_of(data), atol=1e-4 * np.abs(varied).max())
    assert varying_probe_in_counts(data, own[:, ::-1] * np.linspace(0, 1, N))[1] is None


MODES = np.stack([EXAMPLE.probe[0], 0.4 * TILTED[0], 0.2j * TILTED[0]])


def put_in_nexus(path: Path, probe: ComplexArray) -> Path:
    return scan_formats.nexus(path.with_suffix(".nxs"), replace(EXAMPLE, probe=probe))


def put_in_cxi(path: Path, probe: ComplexArray) -> Path:
    return scan_formats.cxi(path.with_suffix(".cxi"), replace(EXAMPLE, probe=probe))


def put_in_matlab(path: Path, probe: ComplexArray) -> Path:
    path = path.with_suffix(".mat")
    metres = EXAMPLE.metres
    found = {"dp": np.moveaxis(EXAMPLE.counts, 0, 2), "ppY": metres[:, 0], "ppX": metres[:, 1], "probe": probe}
    scipy.io.savemat(path, found | {"dx": EXAMPLE.pixel_m})
    return path


@pytest.mark.parametrize(
    ("put", "probe", "said"),
    [
        (put_in_nexus, MODES, ""),
        (put_in_nexus, MODES[:, None], ""),
        (put_in_cxi, MODES[:, None], ""),
        (put_in_cxi, MODES[None, None], ""),
        (put_in_cxi, np.stack([MODES, MODES[::-1]]), "the first of 2 along the axes before it"),
        (put_in_matlab, MODES.transpose(1, 2, 0), ""),
        (put_in_matlab, np.stack([MODES, 0 * MODES]).transpose(2, 3, 1, 0), "the first of 2 along the axes before it"),
        (put_in_matlab, np.stack([MODES, 0 * MODES]), "the first of 2 along the axes before it"),
    ],
)
def test_all_incoherent_modes_are_read(
    put: Callable[[Path, ComplexArray], Path],
    probe: ComplexArray,
    said: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """[DATA-213] Where an axis cannot be told from another, a warning says what was taken."""
    with caplog.at_level(logging.WARNING):
        found = read_scan(put(tmp_path / "scan", probe))
    np.testing.assert_array_equal(found.probe, MODES.astype(np.complex64))
    assert (said in caplog.text) if said else ("incoherent modes" not in caplog.text)


def test_a_probe_of_a_file_has_all_its_modes(tmp_path: Path) -> None:
    """[DATA-213]"""
    path = tmp_path / "scan.npz"
    write_scan(path, scan_of())
    np.savez(tmp_path / "probe.npz", probe=MODES[:, None])
    np.testing.assert_array_equal(read_scan(path, probe=str(tmp_path / "probe.npz")).probe, MODES.astype(np.complex64))
