"""Configuration models: specs/09-command-line.md."""

import pytest
from pydantic import BaseModel, ValidationError

from ptychopinn.config import ExecutionOptions, InferConfig, ModelConfig, SimulationConfig, TrainConfig
from ptychopinn.config.model import SUPPORTED_N
from ptychopinn.config.settings import setting_of
from ptychopinn.config.train import LossWeights

MODELS = (ExecutionOptions, InferConfig, ModelConfig, SimulationConfig, TrainConfig)


@pytest.mark.parametrize("cls", MODELS)
def test_models_are_frozen_and_refuse_unknown_fields(cls: type[BaseModel]) -> None:
    """[CFG-001]"""
    model = cls()
    field = next(iter(cls.model_fields))
    with pytest.raises(ValidationError, match="frozen"):
        setattr(model, field, getattr(model, field))
    with pytest.raises(ValidationError, match="no_such_field is not known"):
        cls(no_such_field=1)


@pytest.mark.parametrize("cls", MODELS)
def test_every_field_is_described(cls: type[BaseModel]) -> None:
    """[CFG-002]"""
    assert [name for name, field in cls.model_fields.items() if not field.description] == []


@pytest.mark.parametrize("cls", MODELS)
def test_what_is_written_is_read_again(cls: type[BaseModel]) -> None:
    """[CFG-001] Through JSON, as in an archive."""
    assert cls.model_validate_json(cls().model_dump_json()) == cls()


def test_the_sections_of_a_training_share_no_field() -> None:
    """[CLI-001] Each field has a flag of its own."""
    names = [name for cls in (ModelConfig, TrainConfig, InferConfig, ExecutionOptions) for name in cls.model_fields]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("size", SUPPORTED_N)
def test_supported_sizes(size: int) -> None:
    """[CFG-003] [PATCH-001]"""
    assert ModelConfig(N=size).patch_size == size // 2
    assert ModelConfig(N=size, pad_object=False).patch_size == size
    assert ModelConfig(N=size, architecture="cnn", probe_big=True).patch_size == size


def test_patches_and_patterns_of_a_group() -> None:
    """[PATCH-003] [CNN-001]"""
    fast, cnn = ModelConfig(gridsize=3), ModelConfig(gridsize=3, architecture="cnn")
    assert (fast.patches_per_group, fast.patterns_per_patch) == (9, 1)
    assert (cnn.patches_per_group, cnn.patterns_per_patch) == (9, 9)
    alone = ModelConfig(gridsize=3, architecture="cnn", object_big=False)
    assert (alone.patches_per_group, alone.patterns_per_patch) == (1, 9)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"architecture": "cnn", "iterations": 3}, "iterations belongs to architecture fast"),
        ({"architecture": "cnn", "fine_iterations": 3}, "fine_iterations belongs to architecture fast"),
        ({"probe_big": True}, "probe_big belongs to architecture cnn"),
        ({"architecture": "cnn", "probe_big": True, "pad_object": False}, "there is no border"),
    ],
)
def test_what_cannot_act_is_refused(given: dict[str, object], message: str) -> None:
    """[CNN-003] [PATCH-002]"""
    with pytest.raises(ValidationError, match=message):
        ModelConfig(**given)


@pytest.mark.parametrize("size", [0, 63, 65, 512])
def test_other_sizes_are_refused_with_those_supported(size: int) -> None:
    """[CFG-003]"""
    with pytest.raises(ValidationError, match=rf"N = {size} is not supported; use one of \(32, 64, 128, 256\)"):
        ModelConfig(N=size)


@pytest.mark.parametrize(
    ("given", "size"),
    [({}, 8), ({"architecture": "cnn"}, 4), ({"gridsize": 1}, 1), ({"gridsize": 2}, 4), ({"group_size": 5}, 5)],
)
def test_the_group_size_in_force(given: dict[str, object], size: int) -> None:
    """[CFG-004]"""
    assert ModelConfig(**given).patterns_per_group == size


def test_gridsize_and_group_size_that_differ_are_refused() -> None:
    """[CFG-004]"""
    assert ModelConfig(gridsize=2, group_size=4).patterns_per_group == 4
    with pytest.raises(ValidationError, match="gridsize 2 means groups of 4, but group_size is 8"):
        ModelConfig(gridsize=2, group_size=8)


def test_the_loss_follows_the_model_type() -> None:
    """[CFG-005]"""
    pinn, supervised = ModelConfig(), ModelConfig(model_type="supervised")
    assert TrainConfig().loss_weights(pinn) == LossWeights(nll=1, mae=0, total_variation=0, realspace_mae=0)
    assert TrainConfig().loss_weights(supervised) == LossWeights(nll=0, mae=0, total_variation=0, realspace_mae=1)
    given = TrainConfig(nll_weight=0.5, mae_weight=2, realspace_weight=3, realspace_mae_weight=4)
    assert given.loss_weights(pinn) == LossWeights(nll=0.5, mae=2, total_variation=3, realspace_mae=4)


def test_a_loss_without_data_is_refused() -> None:
    """[CFG-005]"""
    with pytest.raises(ValidationError, match="so the loss ignores the data"):
        TrainConfig(nll_weight=0, realspace_mae_weight=0, realspace_weight=1)
    with pytest.raises(ValueError, match="the loss of model_type pinn ignores the data"):
        TrainConfig(nll_weight=0).loss_weights(ModelConfig())
    with pytest.raises(ValueError, match="supervised needs realspace_mae_weight above 0"):
        TrainConfig(nll_weight=1, realspace_mae_weight=0).loss_weights(ModelConfig(model_type="supervised"))


@pytest.mark.parametrize(("size", "together"), [(32, 256), (64, 256), (128, 128), (256, 32), (4096, 1)])
def test_large_patterns_are_predicted_fewer_at_a_time(size: int, together: int) -> None:
    assert InferConfig().batch_size(size**2) == together
    assert InferConfig(inference_batch_size=7).batch_size(size**2) == 7


def test_what_depends_on_the_device_is_filled_in() -> None:
    """[CFG-011] Only where it was not given; the rest stays."""
    cpu, gpu = (TrainConfig(nepochs=3).resolved(on_gpu=on_gpu) for on_gpu in (False, True))
    assert (cpu.batch_size, cpu.learning_rate, cpu.nepochs) == (4, 1e-3, 3)
    assert (gpu.batch_size, gpu.learning_rate, gpu.nepochs) == (64, 3e-3, 3)
    given = TrainConfig(batch_size=7, learning_rate=0.1, detector_offset="none", max_time=2.0)
    found = given.resolved(on_gpu=True)
    assert found.model_dump() == given.model_dump()
    assert found.resolved(on_gpu=False) == found
    for name in ("batch_size", "learning_rate"):
        default = setting_of("train", TrainConfig, name).default_text
        assert all(f"{getattr(config, name):g}" in default for config in (cpu, gpu))
