"""Flags, files and their precedence: specs/09-command-line.md."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ptychopinn.cli._legacy import ALIASES, REFUSED, normalise
from ptychopinn.config import ExecutionOptions, InferConfig, ModelConfig, SimulationConfig, TrainConfig
from ptychopinn.config.execution import Accelerator
from ptychopinn.config.model import ModelType
from ptychopinn.config.presets import PRESETS, Preset
from ptychopinn.config.study import StudyConfig
from ptychopinn.config.train import SimulateObjects
from ptychopinn.plugins import Registry

Cli = Callable[..., tuple[int, str, str]]

TRAIN = ("train", "scan.npz", "-o", "run")
INFER = ("infer", "run", "scan.npz", "-o", "out")


@pytest.mark.parametrize("flag", ["--batch-size", "--batch_size"])
def test_dashes_and_underscores(cli: Cli, calls: Any, flag: str) -> None:
    """[CLI-001]"""
    assert cli(*TRAIN, flag, "5")[0] == 0
    assert calls.last["train"] == {"batch_size": 5}
    assert cli(*TRAIN, f"{flag}=6")[0] == 0
    assert calls.last["train"] == {"batch_size": 6}


def test_only_what_was_given_is_handed_on_in_its_own_type(cli: Cli, calls: Any) -> None:
    """[CLI-001] The workflow fills in the rest."""
    cli(*TRAIN, "--model-type", "supervised", "--max-time", "180", "--inference-batch-size", "32", "--springs", "4")
    assert calls.last["model"] == {"model_type": ModelType.SUPERVISED}
    assert calls.last["train"] == {"max_time": 180.0}
    assert calls.last["infer"] == {"inference_batch_size": 32}
    assert calls.last["execution"] == {"springs": 4}
    assert type(calls.last["model"]["model_type"]) is ModelType


@pytest.mark.parametrize(("flag", "value"), [("--probe-trainable", True), ("--no-probe-trainable", False)])
def test_switches(cli: Cli, calls: Any, flag: str, value: bool) -> None:
    """[CLI-001]"""
    cli(*TRAIN, flag)
    assert calls.last["train"] == {"probe_trainable": value}


@pytest.mark.parametrize("text", ["none", "None"])
def test_none_unsets(cli: Cli, calls: Any, text: str) -> None:
    """[CLI-001]"""
    cli(*TRAIN, "--gradient-clip", text, "--logger", "none")
    assert calls.last["train"] == {"gradient_clip": None}
    assert calls.last["execution"]["logger"] == "none"


def test_pairs_may_begin_with_a_minus(cli: Cli, calls: Any) -> None:
    """[CLI-001]"""
    assert cli("simulate", "-o", "s.npz", "--phase-rad", "-0.5,.5", "--object-shape", "90,80")[0] == 0
    config = calls.made[-1][1][0]
    assert config == SimulationConfig(phase_rad=(-0.5, 0.5), object_shape=(90, 80))


def test_the_help_shows_description_default_bounds_and_choices(cli: Cli, toy: Registry) -> None:
    """[CLI-001] With the unit of a number in the place of its value."""
    code, out, _ = cli("train", "--help-all")
    text = " ".join(out.split())
    assert code == 0
    assert "--batch-size GROUPS Groups of patterns in a batch; all of them if there are fewer." in text
    assert "(default: 4 (CPU), 64 (GPU); at least 1; at most 4096)." in text
    assert "--max-time SECONDS End the training after this time." in text
    assert "simulated objects (default: 0; at least 0)." in text
    assert "--scheduler {constant,cosine,exponential}" in text
    assert "change the probe together with the network (default: no)." in text
    assert "--springs INT Springs of the toy (default: 3; at least 1)." in text


@pytest.mark.parametrize("width", [80, 100])
def test_the_short_help_of_a_training_fits_a_screen(
    cli: Cli, toy: Registry, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    """[CLI-008] At most 80 lines, each setting with its default, and the way to the others."""
    monkeypatch.setenv("COLUMNS", str(width))
    _, out, _ = cli("train", "--help")
    assert len(out.splitlines()) <= 80
    settings = " ".join(out.partition("\nsettings:\n")[2].split())
    shown = ("--max-time", "--nepochs", "--batch-size", "--learning-rate", "--refine ", "--refine-probe")
    for flag in (*shown, "--refine-positions", "--accelerator", "--model-type", "--simulate-objects"):
        assert f" {flag}" in f" {settings}"
    assert settings.count("(default: ") == len(re.findall(r"(?<![\w-])--(?!no-|help)", settings))
    assert out.endswith("All settings: ptychopinn train --help-all\n")
    assert "--gradient-clip" not in out
    assert "--backend" in out


@pytest.mark.parametrize("command", ["train", "infer", "stream", "compare", "simulate"])
def test_the_long_help_has_every_flag_of_the_short_one(cli: Cli, toy: Registry, command: str) -> None:
    """[CLI-008] In groups, each flag once."""
    flag = re.compile(r"^  (?:-\w[^,]*, )?(--[\w-]+)", re.MULTILINE)
    code, long, _ = cli(command, "--help-all")
    short = cli(command, "--help")[1]
    assert code == 0
    flags = flag.findall(long)
    assert set(flag.findall(short)) < set(flags)
    assert len(flags) == len(set(flags))
    assert "All settings" not in long


def test_the_long_help_of_a_study_has_the_keys_of_its_file(cli: Cli, toy: Registry) -> None:
    """[CLI-008]"""
    keys = cli("study", "--help-all")[1].partition("keys of the section 'study':")[2]
    assert all(re.search(rf"^  {name} ", keys, re.MULTILINE) for name in StudyConfig.model_fields)


def test_a_misspelt_flag_is_told_of_the_long_help(cli: Cli, toy: Registry) -> None:
    """[CLI-008]"""
    assert "See ptychopinn train --help-all." in cli(*TRAIN, "--qqq", "3")[2]
    assert "See ptychopinn validate --help." in cli("validate", "scan.npz", "--qqq")[2]


@pytest.mark.parametrize(
    "command", ["train", "infer", "evaluate", "simulate", "convert", "validate", "plugins", "demo"]
)
def test_every_command_has_help(cli: Cli, backends: Any, command: str) -> None:
    """[CLI-001] Also where no backend is installed."""
    backends(Registry({}, {}))
    code, out, err = cli(command, "--help")
    assert (code, err) == (0, "")
    assert out.startswith(f"usage: ptychopinn {command}")


def test_every_field_has_a_flag(cli: Cli, toy: Registry) -> None:
    """[CLI-001]"""
    _, train, _ = cli("train", "--help-all")
    for cls in (ModelConfig, TrainConfig, InferConfig, ExecutionOptions):
        for name in cls.model_fields:
            assert f"--{name.replace('_', '-')}" in train
    _, simulate, _ = cli("simulate", "--help-all")
    for name in SimulationConfig.model_fields:
        assert f"--{name.replace('_', '-')}" in simulate


def test_command_line_before_file_before_default(cli: Cli, calls: Any, tmp_path: Path) -> None:
    """[CLI-002]"""
    config = tmp_path / "c.yaml"
    config.write_text("train: {nepochs: 7, batch_size: 2}\ninfer: {synchronise: on}\nbackend: torch\n")
    assert cli(*TRAIN, "--config", config, "--nepochs", "9")[0] == 0
    assert calls.last["train"] == {"nepochs": 9, "batch_size": 2}
    assert calls.last["infer"] == {"synchronise": "on"}
    assert calls.last["model"] == {}


def test_words_of_the_file_and_of_the_command_line(cli: Cli, calls: Any, tmp_path: Path) -> None:
    """[CLI-002]"""
    config = tmp_path / "c.json"
    config.write_text(json.dumps({"backend": "tensorflow", "measurement": "counts"}))
    cli(*TRAIN, "--config", config)
    assert (calls.last["backend"], calls.last["reading"].get("measurement")) == ("tf", "counts")
    cli(*TRAIN, "--config", config, "--backend", "torch", "--measurement", "amplitude")
    assert (calls.last["backend"], calls.last["reading"].get("measurement")) == ("torch", "amplitude")
    cli(*TRAIN)
    assert ("backend" in calls.last, calls.last["reading"]) == (False, {})  # the default one


def test_a_bad_value_in_the_file_names_file_and_key(cli: Cli, calls: Any, tmp_path: Path) -> None:
    """[CFG-009]"""
    config = tmp_path / "c.yaml"
    config.write_text("train: {batch_size: 0}\n")
    code, _, err = cli(*TRAIN, "--config", config)
    assert code == 2
    assert f"'batch_size' in 'train' of {config} is 0: input should be greater than or equal to 1." in err
    code, _, err = cli(*TRAIN, "--config", config, "--batch-size", "-1")
    assert "--batch-size is -1: input" in err
    assert calls.made == []


def test_an_unknown_key_of_the_file_is_refused(cli: Cli, calls: Any, tmp_path: Path) -> None:
    """[CFG-008]"""
    config = tmp_path / "c.yaml"
    config.write_text("nepochs: 3\n")
    code, _, err = cli(*TRAIN, "--config", config)
    assert code == 2
    assert "it belongs in the section 'train'" in err


def test_the_file_of_a_training_serves_inference(cli: Cli, calls: Any, tmp_path: Path) -> None:
    """[CFG-006] [CLI-003] What inference does not read is checked and left aside."""
    config = tmp_path / "c.yaml"
    config.write_text("model: {N: 128}\nexecution: {accelerator: cpu, logger: csv}\ninfer: {synchronise: off}\n")
    assert cli(*INFER, "--config", config)[0] == 0
    assert calls.last["infer"] == {"synchronise": "off"}
    assert calls.last["execution"] == {"accelerator": Accelerator.CPU}
    config.write_text("model: {M: 128}\n")
    assert cli(*INFER, "--config", config)[0] == 2


def test_execution_flags_are_those_of_the_backend(cli: Cli, calls: Any) -> None:
    """[CLI-003]"""
    assert cli(*TRAIN, "--springs", "2")[0] == 0
    code, _, err = cli(*TRAIN, "--springs", "2", "--backend", "tf")
    assert code == 2
    assert "--springs is not a flag of 'ptychopinn train'" in err


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--lr", "3"), "did you mean --learning-rate?"),
        (("--max-tme", "3"), "did you mean --max-time"),
        (("--frames", "0-9"), "but of 'ptychopinn convert'. Make a changed scan first: ptychopinn convert SCAN -o NEW"),
        (("--node", "3"), "--node is not a flag of 'ptychopinn train'. See"),
    ],
)
def test_an_unknown_flag_gets_a_hint_that_helps(cli: Cli, calls: Any, flags: tuple[str, ...], said: str) -> None:
    """[CLI-003]"""
    code, _, err = cli(*TRAIN, *flags)
    assert code == 2
    assert said in err


def test_inference_offers_no_training_flags(cli: Cli, calls: Any) -> None:
    """[CLI-003]"""
    assert cli(*INFER, "--logger", "csv")[0] == 2
    assert cli(*INFER, "--nepochs", "3")[0] == 2
    assert cli(*INFER, "--accelerator", "cpu")[0] == 0


@pytest.mark.parametrize(
    ("flag", "hint"),
    [
        ("--nepoch", "did you mean --nepochs?"),
        ("--learning-rat", "did you mean --learning-rate?"),
        ("--qqq", "not a flag"),
    ],
)
def test_misspelt_flags_are_told_the_nearest(cli: Cli, calls: Any, flag: str, hint: str) -> None:
    """[CLI-004] Abbreviations among them."""
    code, _, err = cli(*TRAIN, flag, "3")
    assert code == 2
    assert hint in err
    assert calls.made == []


@pytest.mark.parametrize(("name", "backend"), [("pytorch", "torch"), ("tensorflow", "tf")])
def test_old_names_of_backends(cli: Cli, calls: Any, name: str, backend: str) -> None:
    """[CLI-005]"""
    cli(*TRAIN, "--backend", name)
    assert calls.last["backend"] == backend


@pytest.mark.parametrize("old", sorted(ALIASES))
def test_aliases_lead_to_flags_that_exist(cli: Cli, toy: Registry, old: str) -> None:
    """[CLI-005]"""
    new = ALIASES[old]
    assert normalise([old, "x"])[0] == new
    assert normalise([old.replace("-", "_").replace("__", "--", 1) + "=x"]) == [f"{new}=x"]
    assert new in cli("train", "--help-all")[1]


@pytest.mark.parametrize("flag", ["--device", "--torch-accelerator", "--accelerator", "--torch_accelerator"])
def test_old_names_of_the_device(cli: Cli, calls: Any, flag: str) -> None:
    """[CLI-005]"""
    for arguments in ((flag, "gpu"), (f"{flag}=gpu",), (flag, "cuda")):
        assert cli(*TRAIN, *arguments)[0] == 0
        assert calls.last["execution"] == {"accelerator": Accelerator.CUDA}
    assert cli(*TRAIN, flag, "cuda:1")[0] == 0
    assert calls.last["execution"] == {"accelerator": "cuda:1"}
    code, _, err = cli(*TRAIN, flag, "mps")
    assert code == 2
    assert "--accelerator is mps: it has no double precision" in err


@pytest.mark.parametrize("old", sorted(REFUSED))
def test_flags_that_are_refused_say_what_to_use(cli: Cli, calls: Any, old: str) -> None:
    """[CLI-005]"""
    code, _, err = cli(*TRAIN, old, "3")
    assert code == 2
    assert f"{old} is not a flag any more. {REFUSED[old]}" in err


def test_n_images_is_refused_with_n_groups(cli: Cli, calls: Any) -> None:
    """[CLI-005]"""
    assert "--n-groups" in cli(*TRAIN, "--n_images", "512")[2]


@pytest.mark.parametrize(
    "command", ["train", "infer", "stream", "evaluate", "compare", "parity", "convert", "validate"]
)
def test_commands_that_read_scans_have_measurement(cli: Cli, toy: Registry, command: str) -> None:
    """[CLI-006]"""
    helps = [cli(command, flag)[1] for flag in ("--help", "--help-all")]
    assert any("--measurement {counts,amplitude}" in text for text in helps)


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        (("train", "--simulate-objects", "scan.npz", "-o", "run"), SimulateObjects.ONLY),
        (("train", "scan.npz", "-o", "run", "--simulate-objects"), SimulateObjects.ONLY),
        (("train", "scan.npz", "--simulate_objects", "-o", "run"), SimulateObjects.ONLY),
        (("train", "scan.npz", "-o", "run", "--simulate-objects", "mixed"), SimulateObjects.MIXED),
        (("train", "scan.npz", "-o", "run", "--simulate-objects=off"), SimulateObjects.OFF),
    ],
)
def test_simulate_objects_alone(cli: Cli, calls: Any, arguments: tuple[str, ...], value: SimulateObjects) -> None:
    """[CLI-007]"""
    assert cli(*arguments)[0] == 0
    assert calls.last["train"] == {"simulate_objects": value}
    assert calls.files[1] == ("scan.npz", "run")


def test_after_two_dashes_nothing_is_a_flag() -> None:
    assert normalise(["validate", "--", "--n_images"]) == ["validate", "--", "--n_images"]


def test_a_preset_fills_in_what_is_not_given(cli: Cli, calls: Any, tmp_path: Path) -> None:
    """[CLI-009] Flags, then the file, go before it; its name is handed on."""
    config = tmp_path / "c.yaml"
    config.write_text("train: {max_time: 50}\ninfer: {refine: 4}\n")
    assert cli(*TRAIN, "--preset", "quick-look")[0] == 0
    assert (calls.last["train"], calls.last["infer"]) == ({"max_time": 20}, {"refine": 2})
    assert calls.last["preset"] == "quick-look"
    assert cli(*TRAIN, "--preset", "quick-look", "--config", config, "--refine", "7")[0] == 0
    assert (calls.last["train"], calls.last["infer"]) == ({"max_time": 50}, {"refine": 7})


def test_a_preset_of_the_file(cli: Cli, calls: Any, tmp_path: Path) -> None:
    """[CLI-009] That of the command line goes before it."""
    config = tmp_path / "c.yaml"
    config.write_text("preset: dim\n")
    assert cli(*INFER, "--config", config)[0] == 0
    assert calls.last["infer"] == {"refine": 3, "refine_likelihood": "poisson"}
    assert cli(*INFER, "--config", config, "--preset", "quick-look")[0] == 0
    assert calls.last["infer"] == {"refine": 2}


def test_an_unknown_preset_is_refused(cli: Cli, calls: Any) -> None:
    """[CLI-009] With those there are."""
    code, _, err = cli(*TRAIN, "--preset", "pretty")
    assert code == 2
    assert "--preset is pretty: input should be 'quick-look', 'best-picture'" in err


@pytest.mark.parametrize("command", ["train", "infer", "stream", "compare"])
def test_presets_are_in_the_long_help(cli: Cli, toy: Registry, command: str) -> None:
    """[CLI-009] Each with what it is for and with its values, as flags."""
    text = " ".join(cli(command, "--help-all")[1].partition("\npresets:")[2].split())
    for preset in Preset:
        assert f"{preset} {PRESETS[preset].summary}" in text
    assert "--refine 3 --refine-likelihood poisson" in text
    assert ("--simulate-objects mixed" in text) == (command in ("train", "compare"))  # what acts on the command
