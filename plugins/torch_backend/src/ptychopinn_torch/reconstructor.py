"""The PyTorch reconstructor."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import Tensor

from ptychopinn.arrays import NUMPY, Array, ArrayLibrary
from ptychopinn.config.model import ModelConfig
from ptychopinn.errors import PluginError, ResourceError
from ptychopinn.monitor import Monitor
from ptychopinn.report import load_matplotlib
from ptychopinn.system import check_address_space
from ptychopinn.training import IlluminationArrays, MicroBatches, NetworkReconstructor, TrainingPlan
from ptychopinn.training.base import Predict
from ptychopinn.training.processes import Place, follow_launched
from ptychopinn.training.ranks import Ranks, TrainingTask
from ptychopinn.typing import AnyArray, ComplexArray, FloatArray
from ptychopinn_torch.arrays import TorchLibrary, is_out_of_memory
from ptychopinn_torch.batches import to_tensor
from ptychopinn_torch.devices import choose_device, describe
from ptychopinn_torch.model import Illumination, Model, model_arrays, model_from_arrays
from ptychopinn_torch.numerics import exact_float32
from ptychopinn_torch.options import TorchOptions
from ptychopinn_torch.parallel import ParallelPredictor, available_threads, limited_threads
from ptychopinn_torch.ranks import device_of, device_options, find_place, join_launched, open_ranks

if TYPE_CHECKING:
    from ptychopinn_torch.training import TrainingLoop

_log = logging.getLogger("ptychopinn.torch")
_TRAINING_MIB = 256  # address space for the import of the training loop, which takes a third of it
_DRAWING = threading.Lock()  # random numbers of the process, for all threads


def import_training_loop() -> type[TrainingLoop]:
    """Import the training loop, which imports Lightning Fabric and is not needed for inference.

    Raises
    ------
    ResourceError
        If memory does not suffice for the import.
    PluginError
        If it fails otherwise.
    """
    if "ptychopinn_torch.training" not in sys.modules:
        check_address_space(_TRAINING_MIB)  # with less, what it imports aborts the process
    try:
        with contextlib.suppress(ImportError):  # Fabric loads Torchmetrics, if that is there, and that loads Matplotlib
            load_matplotlib()
        from ptychopinn_torch.training import TrainingLoop
    except (ImportError, OSError, MemoryError, SystemError) as error:
        if is_out_of_memory(error):
            raise ResourceError(
                f"Memory does not suffice to import the training loop ({error!s:.200}).",
                "Free memory, or raise the limit.",
            ) from error
        raise PluginError(
            f"The torch backend cannot train: {error}.", "Install it again with its dependencies."
        ) from error
    return TrainingLoop


class TorchReconstructor(NetworkReconstructor[Model]):
    """A network in PyTorch; see `ptychopinn.reconstructor.Reconstructor` for the contract."""

    backend = "torch"
    distribution = "ptychopinn-torch"
    framework = f"torch {torch.__version__}"
    options_model = TorchOptions

    def __init__(self, model: ModelConfig, options: TorchOptions | None = None) -> None:
        super().__init__(model, options)
        place = find_place(self._options)
        self._is_launched = place is not None
        own = device_options(self._options, 0 if place is None else place.local_rank)
        self._device = choose_device(own.accelerator)
        _log.info("Computing on %s.", describe(self._device))

    @cached_property
    def library(self) -> ArrayLibrary:
        """Torch on a GPU; NumPy on the CPU, where it is faster."""
        if self._device.type == "cpu":
            return NUMPY
        return TorchLibrary(
            self._device,
            deterministic=self._options.deterministic,
            budget_mb=self._options.device_memory_budget_mb,
        )

    @cached_property
    def _parallel_predictor(self) -> ParallelPredictor:
        return ParallelPredictor(self._device, self._options.threads)

    @property
    def device(self) -> torch.device:
        """The device in use."""
        return self._device

    @property
    def on_gpu(self) -> bool:
        """Whether a GPU computes."""
        return self._device.type == "cuda"

    @property
    def _needs_own_threads(self) -> bool:
        return self.on_gpu or available_threads() > 1

    @property
    def _max_threads(self) -> int:
        if self.on_gpu:
            return 1
        here = 1 if self._is_launched else self._options.devices  # a launcher gives each process its own cores
        return max(available_threads() // here, 1)

    def _use_threads(self, count: int) -> AbstractContextManager[None]:
        return nullcontext() if self.on_gpu and self._options.threads is None else limited_threads(count)

    def _build(self, illumination: IlluminationArrays, seed: int) -> Model:
        with _DRAWING, torch.random.fork_rng(devices=[]):  # keeps the caller's random state
            torch.default_generator.manual_seed(seed)
            module = Illumination(illumination.probe, illumination.offset_px, illumination.log_intensity)
            return Model(self._config, module, self._options.precision).to(self._device)

    def _to_arrays(self, model: Model) -> dict[str, AnyArray]:
        return model_arrays(model)

    def _from_arrays(self, arrays: Mapping[str, AnyArray]) -> Model:
        return model_from_arrays(self._config, arrays, self._options.precision).to(self._device).eval()

    def _unit_probe(self, model: Model) -> ComplexArray:
        with torch.no_grad():
            probe: ComplexArray = model.illumination().cpu().numpy()
        return probe

    def _prepare_training(self) -> None:
        import_training_loop()

    def _open_ranks(self) -> AbstractContextManager[Ranks]:
        return open_ranks(self._options, self._device)

    def prepare_to_follow(self, task: TrainingTask, ranks: Ranks) -> Callable[[], None]:
        """See `NetworkReconstructor`."""
        if self.on_gpu:
            torch.cuda.set_device(self._device)  # else page-locked memory would take room on the first card
        return super().prepare_to_follow(task, ranks)

    @classmethod
    def follow_launched(cls, options: TorchOptions, monitor: Monitor) -> bool:
        """Train as another process orders; see `ptychopinn.reconstructor.TrainsTogether`."""

        def follow(place: Place, ranks: Ranks) -> None:
            cls.follow(device_options(options, place.local_rank), ranks)

        return follow_launched(
            find_place(options), lambda place: join_launched(place, device_of(options)), follow, monitor
        )

    def _make_fit(self, model: Model, plan: TrainingPlan) -> TrainingLoop:
        # Not a method of this instance, which would create a reference cycle.
        return import_training_loop()(model, plan, self._options, self._device, MicroBatches(is_out_of_memory))

    def _predictor(
        self, model: Model, scan_probe: ComplexArray | None, mean_counts: float, good: FloatArray
    ) -> tuple[Array, Predict]:
        light = model.illumination
        if scan_probe is not None:
            light = Illumination(scan_probe, np.zeros(2)).to(self._device)
        with torch.inference_mode():
            probe = light()
            sampled_probes = model.prepare_probe(probe, to_tensor(good, self._device))

        def on_device(counts: Tensor) -> Tensor:
            with torch.inference_mode(), exact_float32(deterministic=self._options.deterministic):
                return cast(Tensor, model(counts, mean_counts, sampled_probes)[:, 0])

        def part(counts: FloatArray) -> ComplexArray:
            patches: ComplexArray = on_device(to_tensor(counts)).numpy()
            return patches

        def on_host(counts: FloatArray) -> ComplexArray:
            with exact_float32(deterministic=self._options.deterministic):
                return self._parallel_predictor(part, counts)

        if self.library.on_host:
            return probe.cpu().numpy(), on_host
        return probe, on_device

    def _out_of_memory(self, error: BaseException) -> bool:
        return is_out_of_memory(error)
