"""Tiny trainings in PyTorch, for tests and for the processes that they start; tensors and arrays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from backend_suite.fits import Fits
from backend_suite.ops import Ops

from ptychopinn.config import ModelConfig
from ptychopinn.config.execution import Precision
from ptychopinn.training import TrainingPlan
from ptychopinn.training.objective import Objective
from ptychopinn.typing import AnyArray
from ptychopinn_torch import forward, model, network, operations
from ptychopinn_torch.options import TorchOptions
from ptychopinn_torch.reconstructor import TorchReconstructor
from ptychopinn_torch.training import make_objective

torch.set_num_threads(1)  # the tests share the machine; tiny networks gain nothing from threads

FITS = Fits(TorchReconstructor, TorchOptions, module=__name__, folder=Path(__file__).parent)
new, fit_to = FITS.new, FITS.fit_to


class TorchOps(Ops):
    """PyTorch's tensors."""

    forward, model, network, operations = forward, model, network, operations

    def tensor(self, array: AnyArray) -> Any:
        """A tensor with memory of its own."""
        return torch.from_numpy(np.array(array))

    def array(self, tensor: Any) -> AnyArray:
        """Its value."""
        return np.asarray(tensor.detach())

    def gradients(self, function: Callable[..., Any], *arrays: AnyArray) -> list[AnyArray]:
        """By backward."""
        given = [self.tensor(array).requires_grad_() for array in arrays]
        value = function(*given).real.sum()
        if not value.requires_grad:
            return [np.zeros_like(array) for array in arrays]
        found = torch.autograd.grad(value, given, allow_unused=True)
        pairs = zip(found, arrays, strict=True)
        return [np.zeros_like(array) if gradient is None else self.array(gradient) for gradient, array in pairs]

    def build(self, config: ModelConfig, probe: AnyArray, offset_px: AnyArray, **settings: Any) -> Any:
        """On the CPU."""
        torch.manual_seed(settings.get("seed", 0))
        light = model.Illumination(probe, offset_px, settings.get("log_intensity", 0.0))
        return model.Model(config, light, settings.get("precision", Precision.FLOAT32)).eval()

    def objective(self, plan: TrainingPlan) -> Objective:
        """On the CPU."""
        return make_objective(plan, plan.training, torch.device("cpu"))
