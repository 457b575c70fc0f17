"""A settings.ini of version 0.1 as of 2026-11-25 (tests/golden). Requirements: specs/08-archive.md."""

from __future__ import annotations

import configparser
from pathlib import Path

import pytest

pytest.importorskip("ptychodus", reason="Ptychodus is not installed")

from ptychodus.api.settings import SettingsRegistry

from ptychopinn.config import RunSettings
from ptychopinn.config.build import build
from ptychopinn.plugins import discover
from ptychopinn.reconstructor import ReconstructorSpec
from ptychopinn_ptychodus.settings import EntrySettings, entry_settings

SETTINGS = Path(__file__).parents[3] / "tests" / "golden" / "settings.ini"


def specs() -> list[ReconstructorSpec]:
    """Those of the backends that the file has groups of."""
    return [spec for name, spec in discover().specs.items() if name in ("torch", "tf")]


@pytest.mark.parametrize("model_type", ["pinn", "supervised"])
def test_settings_of_before_mean_the_same(model_type: str) -> None:
    """[ARC-016] Every key is a setting of today with the value it had, which the models take."""
    assert specs(), "no backend is installed"
    file = configparser.ConfigParser(interpolation=None)
    file.read(SETTINGS)
    for spec in specs():
        registry = SettingsRegistry()
        group = f"PtychoPINNPlugin-{spec.name}-{model_type}"
        settings = EntrySettings(registry, group, entry_settings(spec))
        registry.open_settings(SETTINGS)
        texts = {name.lower(): parameter.get_value() for name, parameter in registry[group].parameters().items()}
        assert dict(file[group]).items() <= texts.items()
        values = settings.values()
        build(RunSettings.with_options(spec.options), values)
        assert (values["train"]["batch_size"], values["train"]["gradient_clip"]) == ("3", None)
        assert values["execution"]["accelerator"] == "cpu"
