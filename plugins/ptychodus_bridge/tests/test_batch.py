"""Batch mode of the released program, end to end."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

pytest.importorskip("ptychodus", reason="Ptychodus is not installed")

from bridge_entries import Entry, Ptychodus
from bridge_scans import as_uint16, make_product, simulated, write_files, write_scan_folder, write_settings
from ptychodus.api.io import load_product

from ptychopinn.forward import expected_counts
from ptychopinn_ptychodus.conversion import positions_px

TINY = {"nepochs": 2, "probe_refinement": 0, "batch_size": 2, "accelerator": "cpu"}


def _train(ptychodus: Ptychodus, tmp_path: Path, entry: Entry, **values: object) -> subprocess.CompletedProcess[str]:
    write_settings(tmp_path / "in", entry.algorithm, entry.group, {**TINY, **values})
    return ptychodus("-b", "train", "-i", "in", "-o", "out")


def test_train_then_reconstruct(ptychodus: Ptychodus, tmp_path: Path, any_entry: Entry) -> None:
    """[PTY-041] [PTY-042] [PTY-044] [PTY-050] [PTY-051] Training writes OUT/model.zip; with it in IN a product comes.

    The probe has two incoherent modes and varies over the scan, the object has two layers, some pixels are bad.
    """
    scan = simulated(probe_modes=2, bad_pixel_fraction=0.01)
    probe = np.stack([scan.probe, 0.05 * scan.probe[:, ::-1]])  # OPR modes
    layers = np.stack([scan.object_guess, np.full_like(scan.object_guess, np.exp(0.1j))])
    weights = np.stack([np.ones(len(scan)), np.linspace(0, 0.4, len(scan))], axis=1)
    write_files(
        tmp_path / "in",
        as_uint16(scan),
        make_product(scan.positions, probe, layers, opr_weights=weights),
        bad=scan.bad_pixels,
    )
    done = _train(ptychodus, tmp_path, any_entry, n_filters_scale=0.25)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "varies over the scan (1 modes); here its mean is used" in done.stdout
    assert "2 layers" in done.stdout
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["model.zip"]
    shutil.copy(tmp_path / "out/model.zip", tmp_path / "in")
    done = ptychodus("-b", "reconstruct", "-i", "in", "-o", "rec")
    assert done.returncode == 0, done.stdout + done.stderr
    (product,) = (tmp_path / "rec").glob("product.*.h5")
    with h5py.File(product) as after, h5py.File(tmp_path / "in/product.h5") as before:
        assert after["object"].shape == (1, *scan.object_guess.shape)
        for key in ("probe_position_x_m", "probe_position_y_m", "probe_position_indexes"):
            np.testing.assert_array_equal(after[key][()], before[key][()])
        for key in ("center_x_m", "center_y_m", "pixel_width_m", "pixel_height_m"):
            assert after["object"].attrs[key] == pytest.approx(before["object"].attrs[key])
        assert after.attrs["photon_energy_eV" if "photon_energy_eV" in before.attrs else "probe_energy_eV"] == 8800.0
        assert list(after["loss_epochs"]) == [1, 2]
        assert np.isfinite(after["loss_values"][()]).all()


@pytest.mark.parametrize(
    "infer", [{}, {"refine": 3, "refine_probe": True, "refine_positions": True}], ids=["", "refined"]
)
def test_the_product_explains_the_scan_as_the_log_says(
    ptychodus: Ptychodus, tmp_path: Path, strange_entry: Entry, infer: dict[str, object]
) -> None:
    """[PTY-044] [PROD-010] The probe was refined before the training: the product has it, not the guess."""
    scan = simulated()
    write_files(
        tmp_path / "in",
        as_uint16(scan),
        make_product(scan.positions, 0.8 * scan.probe[:, ::-1], np.ones_like(scan.object_guess)),
    )
    done = _train(ptychodus, tmp_path, strange_entry, probe_refinement=10, **infer)
    assert done.returncode == 0, done.stdout + done.stderr
    shutil.copy(tmp_path / "out/model.zip", tmp_path / "in")
    done = ptychodus("-b", "reconstruct", "-i", "in", "-o", "rec")
    (said,) = re.findall(r"forward residual R = ([\d.]+)", done.stdout)
    product = load_product(next((tmp_path / "rec").glob("product.*.h5")))
    obj, probe = product.object_.get_array()[0], product.probes.get_array()[0]
    expected = expected_counts(obj, probe, positions_px(product))
    counts = as_uint16(scan).astype(float)
    residual = np.sqrt(((np.sqrt(expected) - np.sqrt(counts)) ** 2).sum() / counts.sum())
    assert residual == pytest.approx(float(said), rel=0.01)


def test_positions_without_patterns(ptychodus: Ptychodus, tmp_path: Path, strange_entry: Entry) -> None:
    """[PTY-045] Patterns and positions are paired by index, as Ptychodus does; the rest is left out."""
    scan = simulated()
    counts = as_uint16(scan)
    product = make_product(scan.positions[4:], scan.probe, np.ones_like(scan.object_guess), indexes=range(4, 36))
    write_files(tmp_path / "in", counts[:-3], product)
    done = _train(ptychodus, tmp_path, strange_entry)
    assert done.returncode == 0, done.stdout + done.stderr
    shutil.copy(tmp_path / "out/model.zip", tmp_path / "in")
    done = ptychodus("-b", "reconstruct", "-i", "in", "-o", "rec")
    assert "29 patches placed" in done.stdout, done.stdout
    with h5py.File(next((tmp_path / "rec").glob("product.*.h5"))) as file:
        assert list(file["probe_position_indexes"]) == list(range(4, 33))


def test_refusals_have_words_and_a_code(ptychodus: Ptychodus, tmp_path: Path, strange_entry: Entry) -> None:
    """[PTY-022] [PTY-031] [PTY-051] A bad setting and a wrong or missing model file: words, and exit code 1."""
    write_scan_folder(tmp_path / "in")
    done = _train(ptychodus, tmp_path, strange_entry, learning_rate=7)
    assert done.returncode == 1
    assert "learning_rate is 7" in done.stdout
    done = _train(ptychodus, tmp_path, strange_entry, preset="pretty")
    assert done.returncode == 1
    assert "preset is pretty" in done.stdout
    done = ptychodus("-b", "reconstruct", "-i", "in", "-o", "rec")
    assert done.returncode == 1
    assert "has no model" in done.stdout
    (tmp_path / "in/model.zip").write_bytes(b"PK something else")
    done = ptychodus("-b", "reconstruct", "-i", "in", "-o", "rec")
    assert done.returncode == 1
    assert "model.zip" in done.stdout + done.stderr
    assert not list((tmp_path / "rec").glob("*.h5"))


def test_an_older_name_of_an_algorithm_is_read(ptychodus: Ptychodus, tmp_path: Path, strange_entry: Entry) -> None:
    """[PTY-012] The name that version 0.1 wrote into settings files; the group is the same."""
    write_scan_folder(tmp_path / "in")
    algorithm = f"ptychopinn-plugin_{strange_entry.backend}-{strange_entry.model_type}"
    assert algorithm != strange_entry.algorithm
    write_settings(tmp_path / "in", algorithm, strange_entry.group, TINY)
    done = ptychodus("-b", "train", "-i", "in", "-o", "out")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "out/model.zip").is_file()


@pytest.mark.parametrize("rows", [slice(None), slice(4, -4)], ids=["not square", "24 wide"])
def test_sizes_that_no_network_has_are_fitted(
    rows: slice, ptychodus: Ptychodus, tmp_path: Path, strange_entry: Entry
) -> None:
    """[PTY-070] In batch mode too."""
    scan = simulated()
    counts, probe = as_uint16(scan)[:, rows, 4:-4], scan.probe[..., rows, 4:-4]
    write_files(tmp_path / "in", counts, make_product(scan.positions, probe, np.ones_like(scan.object_guess)))
    done = _train(ptychodus, tmp_path, strange_entry)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_siemens_star(ptychodus: Ptychodus, tmp_path: Path, entry: Entry, shared_data: Path) -> None:
    """[PTY-053] The measured star, with default settings and 60 s of training, against its reference."""
    with np.load(shared_data / "siemens-star.npz") as star:
        obj = star["objectGuess"]
        positions = np.stack([star["ycoords"], star["xcoords"]], axis=1)
        product = make_product(positions, star["probeGuess"], obj, pixel_m=(1e-8, 1e-8))
        write_files(tmp_path / "in", star["diff3d"], product)
    write_settings(tmp_path / "in", entry.algorithm, entry.group, {"max_time": 60})
    done = ptychodus("-b", "train", "-i", "in", "-o", "out", limit_s=400)
    assert done.returncode == 0, done.stdout + done.stderr
    shutil.copy(tmp_path / "out/model.zip", tmp_path / "in")
    done = ptychodus("-b", "reconstruct", "-i", "in", "-o", "rec", limit_s=400)
    assert done.returncode == 0, done.stdout + done.stderr
    recon = next((tmp_path / "rec").glob("product.*.h5"))
    score = shared_data.parent / "tools/score.py"
    if not score.is_file():
        pytest.skip("the independent scorer is not there")
    files = [recon, shared_data / "siemens-star-reference.npz", shared_data / "siemens-star.npz"]
    scored = subprocess.run([sys.executable, score, *files], capture_output=True, text=True, check=True)
    found = json.loads(scored.stdout)
    print(entry.name, found)
    assert found["phase_corr"] >= 0.80
    assert max(abs(v) for v in found["shift_px"]) < 2.0  # the object lies where the positions say
