"""Configuration files: specs/09-command-line.md."""

import json
from pathlib import Path
from typing import Any

import pytest

from ptychopinn.config import ExecutionOptions, ReadOptions, RunSettings, TrainConfig
from ptychopinn.config.build import build
from ptychopinn.config.files import read_config_file, write_config_file
from ptychopinn.config.run import AllSettings, options_for
from ptychopinn.errors import ConfigError


def write_config(tmp_path: Path, text: str, name: str = "c.yaml") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("on", "on"),
        ("off", "off"),
        ("yes", "yes"),
        ("none", "none"),
        ("true", True),
        ("False", False),
        ("null", None),
        ("1e-3", 1e-3),
        ("2E5", 2e5),
        (".5", 0.5),
        ("12", 12),
        ("-3", -3),
        ("+3", 3),
        ("010", 10),
        ("-08", -8),
        ("1:30", "1:30"),
        ("1:30.5", "1:30.5"),
        ("0x10", "0x10"),
        ("0b11", "0b11"),
        ("1_000", "1_000"),
        ("2020-01-01", "2020-01-01"),
        ("'1'", "1"),
        ("[1, 2.5]", [1, 2.5]),
    ],
)
def test_yaml_means_what_it_says(tmp_path: Path, text: str, value: Any) -> None:
    """[CFG-007]"""
    found = read_config_file(write_config(tmp_path, f"train:\n  x: {text}\n"))["train"]["x"]
    assert found == value
    assert type(found) is type(value)


def test_json_is_read(tmp_path: Path) -> None:
    """[CFG-006]"""
    content = {"backend": "torch", "train": {"nepochs": 3}}
    assert read_config_file(write_config(tmp_path, json.dumps(content), "c.json")) == content


def test_an_empty_file_gives_nothing(tmp_path: Path) -> None:
    """[CFG-006]"""
    assert read_config_file(write_config(tmp_path, "# nothing yet\n")) == {}


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ("train: {nepochs: 3", "c.yaml", "c.yaml cannot be read: .*line 1"),
        ('{"train": ', "c.json", "c.json cannot be read: Expecting value"),
        ("- 1\n- 2\n", "c.yaml", "is a list, not a mapping"),
        ("train: {nepochs: 3}\ntrain: {seed: 1}\n", "c.yaml", "the key 'train' is given twice"),
        ("train:\n  seed: 3\n  seed: 4\n", "c.yaml", "the key 'seed' is given twice"),
        ('{"seed": 3, "seed": 4}', "c.json", "the key 'seed' is given twice"),
        ("a: !!python/object/apply:os.system ['true']", "c.yaml", "aliases and tags"),
        ("a: &a 1\nb: *a", "c.yaml", "aliases and tags"),
        pytest.param("x" * (2**18 + 1), "c.yaml", "more than 262,144 bytes", id="too large"),
    ],
)
def test_files_that_do_not_parse_are_refused(tmp_path: Path, text: str, name: str, message: str) -> None:
    """[CFG-008]"""
    with pytest.raises(ConfigError, match=message):
        read_config_file(write_config(tmp_path, text, name))


def test_files_that_are_not_text_or_not_there_are_refused(tmp_path: Path) -> None:
    """[CFG-008]"""
    (tmp_path / "c.yaml").write_bytes(b"\xff\xfe\x00")
    for name, said in (("c.yaml", "cannot be read"), ("nowhere.yaml", "is not there"), (".", "is a folder")):
        with pytest.raises(ConfigError, match=said):
            read_config_file(tmp_path / name)


@pytest.mark.parametrize(
    ("parsed", "message"),
    [
        ({"trian": {}}, "trian is not known; did you mean train?"),
        ({"nepochs": 3}, "nepochs is not known; it belongs in the section 'train'"),
        ({"train": {"nepoch": 3}}, "nepoch is not known; did you mean nepochs?"),
        ({"train": {3: 4}}, "3 is not known"),
        ({"train": 3}, "train is 3; it must have fields below it"),
        ({"backend": ["torch"]}, "backend is ['torch']: input should be a valid string"),
    ],
)
def test_keys_that_nothing_reads_are_refused(parsed: dict[str, Any], message: str) -> None:
    """[CFG-008]"""
    with pytest.raises(ConfigError) as caught:
        build(AllSettings, parsed)
    assert message in str(caught.value)


def test_every_unknown_key_is_told_at_once() -> None:
    """[CFG-008]"""
    with pytest.raises(ConfigError, match="nada.*nope"):
        build(AllSettings, {"nope": 1, "train": {"nada": 2}})


def test_many_unknown_keys_are_counted() -> None:
    """[CFG-008]"""
    with pytest.raises(ConfigError, match=r"And \d+ more\.") as caught:
        build(AllSettings, {"train": {f"key{number}": 0 for number in range(5000)}})
    assert len(str(caught.value)) < 3000


def test_a_section_without_fields_is_empty() -> None:
    """[CFG-006]"""
    settings = build(AllSettings, {"backend": "torch", "train": None})
    assert (settings.backend, settings.train) == ("torch", TrainConfig())


def test_a_measurement_at_the_top_is_one_of_reading() -> None:
    """[ARC-016] [CFG-006] Version 0.1 had it there."""
    settings = build(AllSettings, {"measurement": "counts", "reading": {"nphotons": 5}})
    assert settings.reading == ReadOptions(measurement="counts", nphotons=5)


def test_what_a_run_writes_can_be_given_again(tmp_path: Path) -> None:
    """[CFG-006]"""
    path = tmp_path / "config.yaml"
    given = RunSettings(backend="torch", model={"N": 128, "gridsize": 2}, infer={"synchronise": "on"})
    write_config_file(path, given)
    assert build(RunSettings, read_config_file(path)) == given


def test_what_was_given_can_be_told_from_defaults() -> None:
    """[CFG-012]"""
    settings = build(AllSettings, {"train": {"nepochs": "3"}, "solver": {"passes": 2}})
    assert settings.given() == {"train": {"nepochs": 3}, "solver": {"passes": 2}}
    assert settings.run_settings() == RunSettings(train={"nepochs": 3})
    assert settings.run_settings().given() == {"train": {"nepochs": 3}}


def test_options_are_those_of_the_backend() -> None:
    """[CFG-012] Also without any being given; those of another backend are checked again."""

    class Own(ExecutionOptions):
        springs: int = 3

    settings = build(RunSettings.with_options(Own), {"execution": {"springs": 4}})
    assert settings.execution == Own(springs=4)
    assert build(RunSettings.with_options(Own), {}).execution == Own()
    assert settings.model_dump()["execution"]["springs"] == 4
    assert options_for(Own, ExecutionOptions(accelerator="cpu")) == Own(accelerator="cpu")
    with pytest.raises(ConfigError, match="springs is not known"):
        options_for(ExecutionOptions, {"springs": 4})
