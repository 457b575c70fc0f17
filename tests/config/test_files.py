"""Configuration files: specs/09-command-line.md."""

import json
from pathlib import Path
from typing import Any

import pytest

from ptychopinn.config import InferConfig, ModelConfig, TrainConfig
from ptychopinn.config.files import check_sections, read_config_file, write_config_file
from ptychopinn.errors import ConfigError

SECTIONS = {"model": ModelConfig, "train": TrainConfig, "infer": InferConfig}
WORDS = {"backend": "the backend"}


def written(tmp_path: Path, text: str, name: str = "c.yaml") -> Path:
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
    found = read_config_file(written(tmp_path, f"train:\n  x: {text}\n"))["train"]["x"]
    assert found == value
    assert type(found) is type(value)


def test_json_is_read(tmp_path: Path) -> None:
    """[CFG-006]"""
    content = {"backend": "torch", "train": {"nepochs": 3}}
    assert read_config_file(written(tmp_path, json.dumps(content), "c.json")) == content


def test_an_empty_file_gives_nothing(tmp_path: Path) -> None:
    """[CFG-006]"""
    assert read_config_file(written(tmp_path, "# nothing yet\n")) == {}


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ("train: {nepochs: 3", "c.yaml", "c.yaml cannot be read: .*line 1"),
        ('{"train": ', "c.json", "c.json cannot be read: Expecting value"),
        ("- 1\n- 2\n", "c.yaml", "is a list, not a mapping"),
        ("train: {nepochs: 3}\ntrain: {seed: 1}\n", "c.yaml", "the key 'train' stands there twice"),
        ("train:\n  seed: 3\n  seed: 4\n", "c.yaml", "the key 'seed' stands there twice"),
        ('{"seed": 3, "seed": 4}', "c.json", "the key 'seed' stands there twice"),
        ("a: !!python/object/apply:os.system ['true']", "c.yaml", "aliases and tags"),
        ("a: &a 1\nb: *a", "c.yaml", "aliases and tags"),
        pytest.param("x" * (2**18 + 1), "c.yaml", "more than 262,144 bytes", id="too large"),
    ],
)
def test_files_that_do_not_parse_are_refused(tmp_path: Path, text: str, name: str, message: str) -> None:
    """[CFG-008]"""
    with pytest.raises(ConfigError, match=message):
        read_config_file(written(tmp_path, text, name))


def test_files_that_are_not_text_or_not_there_are_refused(tmp_path: Path) -> None:
    """[CFG-008]"""
    (tmp_path / "c.yaml").write_bytes(b"\xff\xfe\x00")
    for name, said in (("c.yaml", "cannot be read"), ("nowhere.yaml", "is not there"), (".", "is a folder")):
        with pytest.raises(ConfigError, match=said):
            read_config_file(tmp_path / name)


@pytest.mark.parametrize(
    ("parsed", "message"),
    [
        ({"trian": {}}, "'trian' is not known; did you mean train?"),
        ({"nepochs": 3}, "'nepochs' is not known; it belongs into the section 'train'"),
        ({"train": {"nepoch": 3}}, "'nepoch' in 'train' is not known; did you mean nepochs?"),
        ({"train": {3: 4}}, "'3' in 'train' is not known"),
        ({"train": 3}, "'train' is 3; it must have fields below it"),
        ({"backend": ["torch"]}, "'backend' is ['torch']; it must be a word"),
    ],
)
def test_keys_that_nothing_reads_are_refused(parsed: dict[str, Any], message: str) -> None:
    """[CFG-008]"""
    with pytest.raises(ConfigError) as caught:
        check_sections("c.yaml", parsed, SECTIONS, WORDS)
    assert "The configuration c.yaml: " in str(caught.value)
    assert message in str(caught.value)


def test_every_unknown_key_is_told_at_once() -> None:
    """[CFG-008]"""
    with pytest.raises(ConfigError, match="'nope'.*'nada'"):
        check_sections("c.yaml", {"nope": 1, "train": {"nada": 2}}, SECTIONS, WORDS)


def test_a_section_without_fields_is_empty() -> None:
    """[CFG-006]"""
    check_sections("c.yaml", {"backend": "torch", "train": None}, SECTIONS, WORDS)


def test_what_a_run_writes_can_be_given_again(tmp_path: Path) -> None:
    """[CFG-006]"""
    path = tmp_path / "config.yaml"
    sections = {"model": ModelConfig(N=128, gridsize=2), "infer": InferConfig(synchronise="on")}
    write_config_file(path, sections, {"backend": "torch", "measurement": None})
    parsed = read_config_file(path)
    check_sections(path, parsed, SECTIONS, WORDS)
    assert parsed["backend"] == "torch"
    assert "measurement" not in parsed
    assert ModelConfig(**parsed["model"]) == sections["model"]
    assert InferConfig(**parsed["infer"]) == sections["infer"]
