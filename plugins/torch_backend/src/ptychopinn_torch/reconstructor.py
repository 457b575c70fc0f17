"""The PyTorch reconstructor: what `ptychopinn.training.NetworkReconstructor` leaves to a framework."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import cached_property

import numpy as np
import torch

from ptychopinn.config.execution import Accelerator
from ptychopinn.config.model import ModelConfig
from ptychopinn.errors import ResourceError
from ptychopinn.training import Fit, Light, NetworkReconstructor, Parts, TrainingPlan
from ptychopinn.training.base import Predict
from ptychopinn.typing import AnyArray, ComplexArray, FloatArray
from ptychopinn_torch.arithmetic import arithmetic
from ptychopinn_torch.batches import to_tensor
from ptychopinn_torch.crew import SideBySide
from ptychopinn_torch.model import Illumination, Model, model_arrays, model_from_arrays
from ptychopinn_torch.options import TorchOptions

_log = logging.getLogger("ptychopinn.torch")
# Of allocators and libraries that raise a plain RuntimeError.
_MEMORY_SIGNS = (
    "DefaultCPUAllocator",
    "CUDA error: out of memory",
    "ALLOC_FAILED",
    "could not create a primitive",
    "unable to find an engine",  # of a convolution whose workspace does not fit
)


def choose_device(accelerator: Accelerator) -> torch.device:
    """The device for an option.

    Raises
    ------
    ResourceError
        If CUDA was asked for and is not there.
    """
    if accelerator is Accelerator.CPU or (accelerator is Accelerator.AUTO and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ResourceError(
            "CUDA was asked for, but this PyTorch sees no CUDA device.",
            "Use --accelerator cpu, or install a CUDA build of torch.",
        )
    return torch.device("cuda", torch.cuda.current_device())


class TorchReconstructor(NetworkReconstructor[Model]):
    """A network in PyTorch; see `ptychopinn.reconstructor.Reconstructor` for the contract.

    Parameters
    ----------
    model:
        Configuration of the network.
    options:
        Where and how to compute.
    """

    backend = "torch"
    distribution = "ptychopinn-torch"
    framework = f"torch {torch.__version__}"
    options_model = TorchOptions

    def __init__(self, model: ModelConfig, options: TorchOptions | None = None) -> None:
        super().__init__(model, options)
        self._device = choose_device(self._options.accelerator)
        _log.info("Computing on %s.", self._device)

    @cached_property
    def _side_by_side(self) -> SideBySide:
        return SideBySide(self._device)

    @property
    def device(self) -> torch.device:
        """The device in use."""
        return self._device

    @property
    def on_gpu(self) -> bool:
        """Whether a GPU computes."""
        return self._device.type == "cuda"

    def _build(self, light: Light, seed: int) -> Model:
        with torch.random.fork_rng(devices=[]):  # the caller's random numbers stay as they were
            torch.default_generator.manual_seed(seed)
            illumination = Illumination(light.probe, light.offset_px, light.log_intensity)
            return Model(self._config, illumination, self._options.precision).to(self._device)

    def _to_arrays(self, model: Model) -> dict[str, AnyArray]:
        return model_arrays(model)

    def _from_arrays(self, arrays: Mapping[str, AnyArray]) -> Model:
        return model_from_arrays(self._config, arrays, self._options.precision).to(self._device).eval()

    def _unit_probe(self, model: Model) -> ComplexArray:
        with torch.no_grad():
            probe: ComplexArray = model.illumination().cpu().numpy()
        return probe

    def _start(self, model: Model, plan: TrainingPlan) -> Fit[Model]:
        from ptychopinn_torch.training import TrainingLoop  # inference need not wait for Lightning's import

        return TrainingLoop(model, plan, self._options, self._device, Parts(self._out_of_memory))

    def _predictor(
        self, model: Model, scan_light: ComplexArray | None, mean_counts: float, good: FloatArray
    ) -> tuple[ComplexArray, Predict]:
        light = model.illumination
        if scan_light is not None:
            light = Illumination(scan_light, np.zeros(2)).to(self._device)
        with torch.inference_mode():
            probe = light()
            lit = model.lit(probe, to_tensor(good, self._device))

        def part(counts: FloatArray) -> ComplexArray:
            with torch.inference_mode():
                patches = model(to_tensor(counts, self._device), mean_counts, lit)[:, 0]
            found: ComplexArray = patches.cpu().numpy()
            return found

        def predict(counts: FloatArray) -> ComplexArray:
            with arithmetic(deterministic=self._options.deterministic):
                return self._side_by_side(part, counts)

        return probe.cpu().numpy(), predict

    def _out_of_memory(self, error: BaseException) -> bool:
        if isinstance(error, torch.OutOfMemoryError | MemoryError):
            return True
        return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _MEMORY_SIGNS)
