"""Settings made from configuration models (specs/12-ptychodus.md)."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from pathlib import Path

import pytest
from pydantic import BaseModel, Field

pytest.importorskip("ptychodus", reason="Ptychodus is not installed")

from ptychodus.api.settings import SettingsRegistry

from ptychopinn.config import InferConfig, ModelConfig, TrainConfig
from ptychopinn.config.build import build
from ptychopinn.errors import ConfigError
from ptychopinn.plugins import Registry
from ptychopinn.reconstructor import Capability, ReconstructorSpec
from ptychopinn_ptychodus.library import PluginLibrary
from ptychopinn_ptychodus.settings import EntrySettings, entry_settings


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class StrangersOptions(BaseModel):
    colour: Colour = Field(Colour.RED, description="A colour.")
    table: Path | None = Field(None, description="A file.")
    sizes: tuple[int, ...] = Field((1, 2), description="Sizes.")
    batch_size: int = Field(7, ge=1, description="Shares its name with a training setting.")


def strangers_spec(name: str = "stranger", **changes: object) -> ReconstructorSpec:
    return ReconstructorSpec(
        name=name,
        summary="of a third party",
        import_string="nowhere:Nothing",
        options=StrangersOptions,
        capabilities=frozenset({Capability.CPU, Capability.PINN}),
        **changes,  # type: ignore[arg-type]
    )


def test_defaults_give_the_models_defaults() -> None:
    """[PTY-020] Every section built from an untouched group equals the model's own defaults."""
    values = EntrySettings(SettingsRegistry(), "g", entry_settings(strangers_spec())).values()
    assert build(ModelConfig, {"N": 64, **values["model"]}) == ModelConfig()
    assert build(TrainConfig, values["train"]) == TrainConfig()
    assert build(InferConfig, values["infer"]) == InferConfig()
    assert build(StrangersOptions, values["execution"]) == StrangersOptions()


def test_what_has_no_place_in_the_window_is_not_offered() -> None:
    """[PTY-020] Set by the entry or the data, of run directories, or of trainings that go on from a model."""
    offered = {setting.name for setting in entry_settings(strangers_spec())}
    assert not offered & {"N", "model_type", "logger", "checkpoint_every", "checkpoint_top_k", "start_probe"}


def test_settings_file_keeps_every_value(tmp_path: Path) -> None:
    """[PTY-021] What is set is written to settings.ini and read from it, "not given" included."""
    spec = strangers_spec()
    first, second = SettingsRegistry(), SettingsRegistry()
    one, other = (EntrySettings(r, "PtychoPINNPlugin-x", entry_settings(spec)) for r in (first, second))
    one.parameter("train", "learning_rate").set_value("0.0005")
    one.parameter("train", "gradient_clip").set_value("")
    one.parameter("train", "batch_size").set_value("3")
    one.parameter("execution", "batch_size").set_value("9")
    one.parameter("execution", "table").set_value("/a b/c.txt")
    first.save_settings(tmp_path / "settings.ini")
    second.open_settings(tmp_path / "settings.ini")
    assert other.values() == one.values()
    assert other.values()["train"]["gradient_clip"] is None
    options = build(StrangersOptions, other.values()["execution"])
    assert (options.batch_size, options.table, options.sizes) == (9, Path("/a b/c.txt"), (1, 2))
    assert build(TrainConfig, other.values()["train"]).batch_size == 3


def test_a_preset_fills_in_its_values_and_takes_them_back() -> None:
    """[PTY-024] What somebody set stays: before the preset where it does not act, and after it anywhere."""
    settings = EntrySettings(SettingsRegistry(), "g", entry_settings(strangers_spec()))
    settings.parameter("train", "nepochs").set_value("7")
    settings.parameter("", "preset").set_value("dim")
    assert settings.values()["train"]["simulate_objects"] == "mixed"
    assert settings.values()["infer"]["refine"] == "3"
    settings.parameter("infer", "refine").set_value("5")
    settings.parameter("", "preset").set_value("quick-look")
    values = settings.values()
    assert (values["train"]["nepochs"], values["train"]["max_time"]) == ("7", "20")
    assert (values["train"]["simulate_objects"], values["infer"]["refine_likelihood"]) == ("off", None)
    assert values["infer"]["refine"] == "2"
    settings.parameter("infer", "refine").set_value("5")
    settings.parameter("", "preset").set_value("")
    assert (settings.values()["infer"]["refine"], settings.values()["train"]["max_time"]) == ("5", None)


def test_a_settings_file_goes_before_its_preset(tmp_path: Path) -> None:
    """[PTY-024] Wherever it stands in the file, and where a value is the default; saved and read it is the same."""
    file = tmp_path / "settings.ini"
    file.write_text("[PtychoPINNPlugin-x]\nrefine_probe = false\nrefine = 4\npreset = best-picture\n")
    first, second = SettingsRegistry(), SettingsRegistry()
    one, other = (EntrySettings(r, "PtychoPINNPlugin-x", entry_settings(strangers_spec())) for r in (first, second))
    first.open_settings(file)
    assert (one.preset, one.values()["infer"]["refine"], one.values()["infer"]["refine_probe"]) == (
        "best-picture",
        "4",
        "false",
    )
    first.save_settings(tmp_path / "saved.ini")
    second.open_settings(tmp_path / "saved.ini")
    assert (other.preset, other.values()) == (one.preset, one.values())
    second.open_settings(Path(__file__).parents[3] / "tests/golden/settings.ini")  # has no such group


def test_a_settings_file_of_before_keeps_the_network_alone(tmp_path: Path) -> None:
    """[PTY-021] It says so itself, since a saved file states every setting; where nothing is said, the default acts."""
    file = tmp_path / "settings.ini"
    file.write_text("[PtychoPINNPlugin-x]\nrefine = 0\nrefine_probe = false\nrefine_likelihood =\n")
    registry = SettingsRegistry()
    settings = EntrySettings(registry, "PtychoPINNPlugin-x", entry_settings(strangers_spec()))
    assert build(InferConfig, settings.values()["infer"]).refine == 2
    registry.open_settings(file)
    assert build(InferConfig, settings.values()["infer"]) == InferConfig(refine=0)


def test_bad_value_is_refused_when_work_begins() -> None:
    """[PTY-022] A value out of bounds does not raise in the settings; building the model names it."""
    registry = SettingsRegistry()
    settings = EntrySettings(registry, "g", entry_settings(strangers_spec()))
    registry["g"].parameters()["learning_rate"].set_value_from_string("fast")
    with pytest.raises(ConfigError, match="learning_rate is fast"):
        build(TrainConfig, settings.values()["train"])


def test_entries_come_from_the_registry_alone(caplog: pytest.LogCaptureFixture) -> None:
    """[PTY-010] [PTY-011] Third-party backends appear, an entry for each model type; the missing are named."""
    registry = Registry(
        specs={"stranger": strangers_spec(), "absent": strangers_spec("absent", requires=("no_such_framework",))},
        distributions={"stranger": "s 1", "absent": "a 1"},
    )
    library = PluginLibrary(SettingsRegistry(), registry)
    assert [r.name for r in library] == ["reconstruct", "unsupervised-stranger"]
    assert "no_such_framework" in caplog.text
    assert "_" not in library.name


def test_entries_are_in_order_of_what_one_must_know() -> None:
    """[PTY-010] [PTY-011] Those that learn without a known object first; their older names lead to them."""
    capabilities = frozenset({Capability.CPU, Capability.PINN, Capability.SUPERVISED})
    both = {name: replace(strangers_spec(name), capabilities=capabilities) for name in ("alpha", "torch")}
    library = PluginLibrary(SettingsRegistry(), Registry(specs=both, distributions={"alpha": "a 1", "torch": "b 1"}))
    assert [entry.name for entry in library] == [
        "reconstruct",
        *("unsupervised-torch", "unsupervised-alpha"),
        *("supervised-torch", "supervised-alpha"),
    ]
    assert library.older_names["ptychopinn-plugin_alpha-pinn"] == "ptychopinn-plugin_unsupervised-alpha"
    assert library.older_names["ptychopinn-plugin_torch-supervised"] == "ptychopinn-plugin_supervised-torch"


def test_no_framework_is_named_in_the_sources() -> None:
    """[PTY-010] Nothing in the bridge names a framework or a backend."""
    import ptychopinn_ptychodus

    for path in Path(ptychopinn_ptychodus.__path__[0]).rglob("*.py"):
        text = path.read_text("utf-8").lower()
        assert not any(word in text for word in ("torch", "tensorflow", "keras")), path


def test_broken_options_leave_the_other_entries(caplog: pytest.LogCaptureFixture) -> None:
    """[PTY-004] An options model that cannot be turned into settings costs only its own entries."""

    class Clash(BaseModel):
        execution_batch_size: int = 1
        batch_size: int = 2

    broken = ReconstructorSpec("clash", "", "a:B", Clash, frozenset({Capability.PINN}))
    registry = Registry(
        specs={"clash": broken, "stranger": strangers_spec()}, distributions={"clash": "", "stranger": ""}
    )
    library = PluginLibrary(SettingsRegistry(), registry)
    assert [r.name for r in library] == ["reconstruct", "unsupervised-stranger"]
    assert "unsupervised-clash is left out" in caplog.text
