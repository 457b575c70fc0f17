"""How the suite calls a backend's functions, which have the same names and arguments in every backend."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from ptychopinn.config import ModelConfig
from ptychopinn.config.execution import Precision
from ptychopinn.training import TrainingPlan
from ptychopinn.training.objective import Objective
from ptychopinn.typing import AnyArray


class Ops(ABC):
    """NumPy arrays to tensors of a framework, and back.

    Attributes
    ----------
    forward, model, network, operations:
        The backend's modules of these names.
    """

    forward: ModuleType
    model: ModuleType
    network: ModuleType
    operations: ModuleType

    @abstractmethod
    def tensor(self, array: AnyArray) -> Any:
        """A tensor of the same dtype."""

    @abstractmethod
    def array(self, tensor: Any) -> AnyArray:
        """The inverse, without gradient."""

    @abstractmethod
    def gradients(self, function: Callable[..., Any], *arrays: AnyArray) -> list[AnyArray]:
        """Gradients of the sum of ``function``'s real values: real and imaginary part that of the loss; 0 for None."""

    @abstractmethod
    def build(self, config: ModelConfig, probe: AnyArray, offset_px: AnyArray, **settings: Any) -> Any:
        """A `Model` with an `Illumination`; ``log_intensity``, ``precision`` and ``seed`` as there."""

    @abstractmethod
    def objective(self, plan: TrainingPlan) -> Objective:
        """The loss of a plan's training scan."""

    def run(self, function: Callable[..., Any], *arguments: Any, **keywords: Any) -> AnyArray:
        """A function of tensors on arrays; what is no array is passed as it is."""
        given = [self.tensor(a) if hasattr(a, "dtype") else a for a in arguments]
        return self.array(function(*given, **keywords))

    def filled(self, config: ModelConfig, arrays: Mapping[str, AnyArray], precision: Precision) -> Any:
        """`model_from_arrays`."""
        return self.model.model_from_arrays(config, dict(arrays), precision)
