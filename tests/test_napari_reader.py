"""What napari gets of a product. Requirements: specs/26-python.md."""

from __future__ import annotations

import importlib
import tomllib
from pathlib import Path

import numpy as np
import pytest
import yaml

import ptychopinn
from ptychopinn.napari_reader import get_reader, read_layers
from ptychopinn.product import Product, write_product


@pytest.fixture
def path(tmp_path: Path) -> Path:
    y, x = np.mgrid[:40, :50]
    product = Product(
        name="star",
        positions=np.array([[14.0, 18.0], [25.5, 30.25]]),
        probe=np.ones((2, 16, 16), np.complex64),
        object=np.exp(0.01j * (y + 2 * x)).astype(np.complex64),
        pixel_size_m=(2e-8, 2e-8),
        phase_error=np.full((40, 50), 0.1, np.float32),
    )
    write_product(tmp_path / "reconstruction.h5", product)
    return tmp_path / "reconstruction.h5"


def test_layers_lie_on_each_other(path: Path) -> None:
    """[API-010]"""
    layers = {about["name"].removeprefix("star: "): (data, about, kind) for data, about, kind in read_layers(str(path))}
    assert {kind for _, _, kind in layers.values()} == {"image", "points"}
    assert [name for name, (_, about, _) in layers.items() if about["visible"]] == ["phase"]
    for _, about, _ in layers.values():
        assert about["scale"] == pytest.approx((0.02, 0.02))
        assert about["metadata"] == {"unit": "um"}
    np.testing.assert_allclose(layers["positions"][0], [[14, 18], [25.5, 30.25]], atol=1e-6)
    assert layers["phase"][0][30, 20] == pytest.approx(0.7, abs=1e-5)
    assert layers["standard error of the phase"][0].shape == (40, 50)


def test_only_products_are_read(path: Path, tmp_path: Path) -> None:
    """[API-010]"""
    assert get_reader([str(path)]) is read_layers
    (tmp_path / "other.h5").write_bytes(b"no HDF5")
    assert get_reader(str(tmp_path / "other.h5")) is None


def test_the_manifest_names_the_reader() -> None:
    """[API-010] napari imports what it names."""
    folder = Path(ptychopinn.__file__).parent
    manifest = yaml.safe_load((folder / "napari.yaml").read_text())
    (command,) = manifest["contributions"]["commands"]
    module, _, name = command["python_name"].partition(":")
    assert getattr(importlib.import_module(module), name) is get_reader
    assert manifest["contributions"]["readers"][0]["command"] == command["id"]
    project = folder.parents[1] / "pyproject.toml"
    if project.is_file():
        points = tomllib.loads(project.read_text())["project"]["entry-points"]["napari.manifest"]
        assert points == {manifest["name"]: "ptychopinn:napari.yaml"}
