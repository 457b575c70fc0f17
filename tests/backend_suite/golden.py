"""Files of version 0.1 as of 2026-11-25 (tests/golden) in today's. Requirements: specs/08-archive.md."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backend_suite.fits import Fits
from ptychopinn.bundle import read_bundle, write_bundle
from ptychopinn.config import InferConfig
from ptychopinn.config.build import build
from ptychopinn.config.files import read_config_file
from ptychopinn.data.io import read_scan
from ptychopinn.errors import ArchiveError, ConfigError, PtychoPinnError
from ptychopinn.reconstruction import reconstruct
from ptychopinn.workflows import RunResult, run_settings, train_run

GOLDEN = Path(__file__).parents[1] / "golden"
RUNS = ("torch-fast", "tf-fast", "torch-cnn")
EPOCHS = 40  # of every run


@pytest.fixture
def copied(fits: Fits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the run of this backend; going on with it draws nothing, which would take longer than all the rest."""
    monkeypatch.setattr("ptychopinn.workflows._outputs.write_pictures", lambda *args, **kwargs: {})
    shutil.copytree(GOLDEN / f"{fits.cls.backend}-fast", tmp_path / "run")
    return tmp_path / "run"


def go_on(folder: Path, backend: str, **changes: Any) -> RunResult:
    """Resume a run with the settings that it began with, for two epochs more."""
    settings = read_config_file(GOLDEN / f"{backend}-fast" / "config.yaml")
    return train_run(
        GOLDEN / "scan.npz",
        folder,
        run_settings(**settings | {"train": settings["train"] | {"nepochs": EPOCHS + 2} | changes}),
        resume=True,
    )


@pytest.mark.parametrize("run", RUNS)
def test_an_archive_of_before_predicts_the_same(fits: Fits, run: str) -> None:
    """[ARC-016] Whichever backend wrote it."""
    data = read_scan(GOLDEN / "scan.npz")
    model = fits.cls.load(GOLDEN / run / "wts.h5.zip", fits.options(accelerator="cpu"))
    expected = np.load(GOLDEN / "predictions.npz")
    patches = model.infer(data, InferConfig()).collect(len(data))
    amplitude = np.abs(expected[f"{run}/patches"]).mean()
    np.testing.assert_allclose(patches, expected[f"{run}/patches"], rtol=0, atol=1e-4 * amplitude)
    found = reconstruct(model, data, InferConfig(synchronise="on", refine=0)).object
    np.testing.assert_allclose(found, expected[f"{run}/object"], rtol=0, atol=1e-3 * amplitude)


def test_a_run_of_before_has_options_of_today(fits: Fits) -> None:
    """[ARC-016]"""
    settings = read_config_file(GOLDEN / f"{fits.cls.backend}-fast" / "config.yaml")["execution"]
    assert settings.items() <= build(fits.options, settings).model_dump(mode="json").items()


def test_a_checkpoint_of_before_goes_on(fits: Fits, copied: Path, caplog: pytest.LogCaptureFixture) -> None:
    """[ARC-016]"""
    with caplog.at_level(logging.INFO, logger="ptychopinn"):
        result = go_on(copied, fits.cls.backend)
    assert f"Resuming after epoch {EPOCHS}" in caplog.text
    rows = (result.folder / "history.csv").read_text().splitlines()
    loss = [float(row.split(",")[rows[0].split(",").index("loss")]) for row in rows[1:]]
    assert len(loss) == EPOCHS + 2
    assert max(loss[-2:]) < 1.5 * loss[-3]


def test_a_checkpoint_that_does_not_fit_names_its_writer(fits: Fits, copied: Path) -> None:
    """[ARC-016]"""
    (checkpoint,) = (copied / "checkpoints").iterdir()
    bundle = read_bundle(checkpoint)
    kept = {name: array for name, array in bundle.weights.items() if not name.startswith("averaged/")}
    write_bundle(checkpoint, bundle.manifest, kept)
    refused(ArchiveError, fits.cls.backend, lambda: go_on(copied, fits.cls.backend))


def test_an_archive_that_does_not_fit_names_its_writer(fits: Fits, tmp_path: Path) -> None:
    """[ARC-016]"""
    for run in RUNS:
        bundle = read_bundle(GOLDEN / run / "wts.h5.zip")
        names = sorted(name for name in bundle.weights if name.startswith("network/"))
        write_bundle(tmp_path / run, bundle.manifest, {k: v for k, v in bundle.weights.items() if k != names[0]})

        def load(path: Path = tmp_path / run) -> object:
            return fits.cls.load(path, fits.options(accelerator="cpu"))

        refused(ArchiveError, bundle.manifest.writer.backend, load)


def test_settings_that_are_gone_name_their_writer(fits: Fits, copied: Path) -> None:
    """[ARC-016] And those that were not there yet have their default."""
    text = (copied / "config.yaml").read_text()
    (copied / "config.yaml").write_text(text.replace("  mae_weight: 0.0\n", "  wished_for: 1\n"))
    refused(ConfigError, fits.cls.backend, lambda: go_on(copied, fits.cls.backend))
    (copied / "config.yaml").write_text(text.replace("  mae_weight: 0.0\n", ""))
    with pytest.raises(ConfigError, match="started with another mae_weight"):
        go_on(copied, fits.cls.backend, mae_weight=1.0)
    go_on(copied, fits.cls.backend)


def refused(error: type[PtychoPinnError], backend: str, act: Callable[[], object]) -> None:
    """Whether the version that can read it is named."""
    with pytest.raises(error, match=rf"ptychopinn 0\.1\.0 with the backend {backend}"):
        act()
