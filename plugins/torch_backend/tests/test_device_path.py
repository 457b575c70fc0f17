"""What a training does on a device, seen with CPU tensors: nothing waits for it. Requirements: specs/10-training.md."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten
from torch_fits import FITS

from ptychopinn.config import ModelConfig, SimulationConfig, TrainConfig
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.simulate import simulate_scan
from ptychopinn_torch import training
from ptychopinn_torch.options import TorchOptions
from ptychopinn_torch.reconstructor import TorchReconstructor

RESIDENT = {"device_memory_budget_mb": 256}
# Operations whose result, or the size of whose result, the host waits for.
WAITS = {"_local_scalar_dense", "item", "nonzero", "masked_select", "unique", "_unique2", "is_nonzero", "equal"}
READS = ("numpy", "__array__", "tolist", "item", "cpu", "__bool__", "__float__", "__int__", "__index__", "__complex__")
# They move nothing and launch nothing.
VIEWS = {
    *("view", "_unsafe_view", "t", "transpose", "expand", "slice", "select", "unsqueeze", "squeeze", "detach"),
    *("alias", "permute", "as_strided", "view_as_real", "view_as_complex", "unbind", "split", "split_with_sizes"),
    *("_conj", "_reshape_alias", "_record_function_enter_new", "_record_function_exit"),
}

KINDS: dict[str, dict[str, Any]] = {
    "measured": {"train": {"mae_weight": 0.5, "realspace_weight": 0.1, "probe_trainable": True}},
    "light fixed": {"train": {"detector_offset": "none"}},
    "supervised": {"model": {"model_type": "supervised"}},
    "accumulated": {"train": {"accumulate_grad_batches": 2, "gradient_clip_algorithm": "value"}},
    "simulated": {"train": {"simulate_objects": "only", "gradient_clip": None}},
    "family": {"train": {"simulate_objects": "mixed", "simulate_probes": "family", "intensity_scale_trainable": True}},
    "published": {"model": {"architecture": "cnn", "group_size": 4, "iterations": None}},
}


class Watch(TorchDispatchMode):
    """Counts operations."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))

    @property
    def launches(self) -> int:
        """Operations that a device is asked to do."""
        return sum(count for name, count in self.seen.items() if name not in VIEWS)


class OneDevice(TorchDispatchMode):
    """Refuses operations with tensors of another device, but for single numbers, which are arguments of a kernel."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = tree_flatten((args, kwargs or {}))[0]
        strange = [t for t in given if isinstance(t, torch.Tensor) and t.device.type != "meta" and t.dim() > 0]
        assert not strange, f"{func} is given a tensor of {strange[0].device}"
        return func(*args, **(kwargs or {}))


@pytest.fixture
def no_reads(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From now on no tensor is read by the host."""

    def refuse(name: str) -> Callable[..., Any]:
        def read(self: torch.Tensor, *args: Any, **more: Any) -> Any:
            raise AssertionError(f"Tensor.{name} waits for the device")

        return read

    def forbid() -> None:
        for name in READS:
            monkeypatch.setattr(torch.Tensor, name, refuse(name))

    return forbid


class _Stopped(Exception):
    """A training that was only begun."""


def run_first_epoch(data: ScanDataset, model: dict[str, Any], train: dict[str, Any], options: dict[str, Any]) -> Any:
    """The loop of a training that has made its first epoch."""
    loops: list[training.TrainingLoop] = []
    with pytest.MonkeyPatch.context() as patch:
        original = training.TrainingLoop._run_epoch

        def first(self: training.TrainingLoop, state: Any) -> None:
            original(self, state)
            loops.append(self)
            raise _Stopped

        patch.setattr(training.TrainingLoop, "_run_epoch", first)
        with pytest.raises(_Stopped):
            FITS.fit_to(data, model, train, options)
    return loops[0]


def steps(loop: Any, epoch: int) -> Iterator[None]:
    """The batches of an epoch, made and trained on."""
    for number, batch in enumerate(loop._source.batches(epoch)):
        loop.train_on(batch, rate=loop._plan.clock.learning_rate(), makes_step=loop._plan.makes_step(number))
        yield


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_in_a_step_waits_for_the_device(
    off_centre: ScanDataset, no_reads: Callable[[], None], kind: str
) -> None:
    """[TRAIN-014] [TRAIN-015] Neither the making of a batch nor the step, the smaller last batch included."""
    settings = KINDS[kind]
    train = {"n_groups": 7, **settings.get("train", {})}
    loop = run_first_epoch(off_centre, settings.get("model", {}), train, RESIDENT)
    no_reads()
    with Watch() as watch:
        assert len(list(steps(loop, 1))) == 4
    assert not WAITS & watch.seen.keys()
    assert watch.seen["_fused_adamw_"] == loop._adamw.param_groups.__len__() * (2 if kind == "accumulated" else 4)


def test_a_read_is_noticed(
    off_centre: ScanDataset, no_reads: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the test above would miss, it would miss here."""
    loop = run_first_epoch(off_centre, {}, {}, RESIDENT)
    original = training.TrainingLoop._gradients

    def reading(self: Any, parts: Any) -> Any:
        terms, gradients = original(self, parts)
        torch.nonzero(gradients[0] > 0)
        return terms, gradients

    monkeypatch.setattr(training.TrainingLoop, "_gradients", reading)
    with Watch() as watch:
        next(steps(loop, 1))
    assert "nonzero" in watch.seen
    with Watch() as watch:
        float(loop._meter._newest)
    assert WAITS & watch.seen.keys()
    no_reads()
    with pytest.raises(AssertionError, match="waits for the device"):
        loop._meter.read()


def test_a_step_of_the_default_network_is_some_hundred_operations() -> None:
    """Each is a launch on a GPU, and takes the host some microseconds."""
    scan = simulate_scan(SimulationConfig(N=64, rows=6, cols=6, seed=1))
    made = TorchReconstructor(ModelConfig(N=64), TorchOptions(accelerator="cpu", **RESIDENT))
    watch, original = Watch(), training.TrainingLoop.train_on

    def watched(self: Any, *args: Any, **more: Any) -> None:
        with watch if self._plan.clock.step == 2 else nullcontext():
            original(self, *args, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.TrainingLoop, "train_on", watched)
        made.train(scan, TrainConfig(nepochs=1, n_groups=6, batch_size=2, probe_refinement=0))
    assert 300 < watch.launches < 850


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_in_a_loss_is_on_another_device(
    off_centre: ScanDataset, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """[TRAIN-014] On a device without memory, where a tensor of the CPU cannot be mixed in, nor anything be read."""
    settings = KINDS[kind]
    loop = run_first_epoch(off_centre, settings.get("model", {}), settings.get("train", {}), RESIDENT)
    batch = {name: tensor.to("meta") for name, tensor in next(loop._source.batches(0)).tensors.items()}
    loss = loop._loss.module
    model, objective = copy.deepcopy(loss.model).to("meta"), copy.copy(loss._objective)
    objective._group, objective._good = copy.deepcopy(objective._group).to("meta"), objective._good.to("meta")
    monkeypatch.setattr(torch, "autocast", lambda *args, **more: nullcontext())  # it knows no such device
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    with OneDevice():
        terms = objective(model, batch)
        gradients = torch.autograd.grad(terms.total, weights, allow_unused=True)
    assert {gradient.device.type for gradient in gradients if gradient is not None} == {"meta"}
    assert len({tensor.device.type for tensor in (terms.total, *terms.parts.values(), *terms.products)}) == 1


@pytest.mark.parametrize("kind", ["measured", "published"])
def test_gradients_and_moments_have_the_layout_of_their_weight(off_centre: ScanDataset, kind: str) -> None:
    """Fused kernels go over the memory of all of them together."""
    settings = KINDS[kind]
    loop = run_first_epoch(off_centre, settings.get("model", {}), settings.get("train", {}), RESIDENT)
    _, gradients = loop._gradients([next(loop._source.batches(1)).tensors])
    assert any(not weight.is_contiguous() for weight in loop._free)
    for weight, gradient in zip(loop._free, gradients, strict=True):
        if gradient is not None:
            assert gradient.stride() == weight.stride()
            state = loop._adamw.state[weight]
            assert state["exp_avg"].stride() == state["exp_avg_sq"].stride() == weight.stride()
    loop.restore(loop.state())
    for weight in loop._free:
        if weight in loop._adamw.state:
            assert loop._adamw.state[weight]["exp_avg"].stride() == weight.stride()
