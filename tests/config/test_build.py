"""Errors of configuration values: specs/09-command-line.md."""

from collections.abc import Sequence

import pytest

from ptychopinn.config import ExecutionOptions, ModelConfig, SimulationConfig, TrainConfig
from ptychopinn.config.build import NameOf, build, dotted, suggestion
from ptychopinn.config.execution import asks_for_cuda, cuda_number
from ptychopinn.config.model import ModelType
from ptychopinn.errors import ConfigError


def dashed(path: Sequence[str]) -> str:
    return "--" + path[-1].replace("_", "-")


def test_text_is_converted() -> None:
    """[CFG-009]"""
    config = build(TrainConfig, {"nepochs": "40", "learning_rate": "5e-4", "simulate_objects": "off", "max_time": None})
    assert (config.nepochs, config.learning_rate, config.max_time) == (40, 5e-4, None)
    assert build(ModelConfig, {"model_type": "supervised"}).model_type is ModelType.SUPERVISED
    assert build(SimulationConfig, {"amplitude": ["0.5", "1"]}).amplitude == (0.5, 1.0)


@pytest.mark.parametrize(
    ("cls", "field", "value", "message"),
    [
        (TrainConfig, "batch_size", "0", "--batch-size is 0: input should be greater than or equal to 1."),
        (TrainConfig, "learning_rate", "fast", "--learning-rate is fast: input should be a valid number"),
        (TrainConfig, "learning_rate", "nan", "--learning-rate is nan: input should be"),
        (TrainConfig, "scheduler", "linear", "'constant', 'cosine' or 'exponential'"),
        (
            ExecutionOptions,
            "accelerator",
            "tpu",
            "--accelerator is tpu: input should be 'auto', 'cpu', 'cuda' or",
        ),
        (ExecutionOptions, "accelerator", "cuda:", "--accelerator is cuda:: input should be"),
        (ExecutionOptions, "accelerator", "cuda:-1", "--accelerator is cuda:-1: input should be"),
        (ExecutionOptions, "accelerator", 1, "--accelerator is 1: input should be"),
        (ExecutionOptions, "accelerator", "mps", "--accelerator is mps: it has no double precision"),
        (ExecutionOptions, "accelerator", "mps:0", "which the physics needs; use cpu"),
        (ExecutionOptions, "accelerator", "rocm", "for ROCm call their devices cuda; use cuda"),
        (ModelConfig, "N", "63", "N = 63 is not supported"),
        (TrainConfig, "batchsize", "3", "--batchsize is not known; did you mean batch_size? Change"),
        (TrainConfig, "qqq", "3", "--qqq is not known; valid are max_time, nepochs"),
    ],
)
def test_an_error_names_field_value_and_bound(cls: type, field: str, value: str, message: str) -> None:
    """[CFG-009]"""
    with pytest.raises(ConfigError) as caught:
        build(cls, {field: value}, dashed)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "pydantic" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "number", "cuda"),
    [("auto", None, False), ("cpu", None, False), ("cuda", None, True), ("cuda:0", 0, True), ("cuda:12", 12, True)],
)
def test_a_device_is_a_word_or_a_card(value: str, number: int | None, cuda: bool) -> None:
    """[TRAIN-009] And comes back as it was written."""
    options = build(ExecutionOptions, {"accelerator": value})
    assert (cuda_number(options.accelerator), asks_for_cuda(options.accelerator)) == (number, cuda)
    assert options.model_dump(mode="json")["accelerator"] == value
    assert build(ExecutionOptions, options.model_dump(mode="json")) == options


def test_several_errors_are_told_at_once() -> None:
    """[CFG-009]"""
    with pytest.raises(ConfigError, match=r"--nepochs is 0.* --batch-size is -1"):
        build(TrainConfig, {"nepochs": 0, "batch_size": -1}, dashed)


def test_a_long_value_is_cut() -> None:
    """[CFG-009]"""
    with pytest.raises(ConfigError) as caught:
        build(TrainConfig, {"nepochs": "x" * 10_000})
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("name", [dotted, dashed])
def test_fields_have_the_names_of_the_giver(name: NameOf) -> None:
    """[CFG-009]"""
    with pytest.raises(ConfigError, match=f"{name(['batch_size'])} is 0"):
        build(TrainConfig, {"batch_size": 0}, name)


def test_the_nearest_names() -> None:
    assert suggestion("lerning_rate", ["learning_rate", "seed"]) == "; did you mean learning_rate?"
    assert suggestion("zzz", ["a", "b"]) == "; valid are a, b"
