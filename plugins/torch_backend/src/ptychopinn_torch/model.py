"""The model in an archive: the network and its illumination."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from ptychopinn.config.execution import Precision
from ptychopinn.config.model import Architecture, ModelConfig
from ptychopinn.training import (
    DetectorSampling,
    IlluminationArrays,
    illumination_from_tensors,
    illumination_tensors,
    network_tensors,
)
from ptychopinn.typing import AnyArray, ComplexArray, FloatArray
from ptychopinn_torch.cnn import CnnNetwork
from ptychopinn_torch.network import FastNetwork, SampledProbe


class Illumination(nn.Module):
    """The probe in units of the square root of a scan's mean counts, the detector's offset, and a factor on counts.

    Parameters
    ----------
    probe:
        (modes, N, N) complex64, initially with the energy 1 on the detector.
    offset_px:
        (2,) (y, x): shift of the patterns from the probe's far field, detector pixels.
    log_intensity:
        Natural logarithm of a factor on all counts.
    """

    grid: Tensor
    offset_px: Tensor
    peak: Tensor

    def __init__(self, probe: ComplexArray, offset_px: FloatArray, log_intensity: float = 0.0) -> None:
        super().__init__()
        values = torch.view_as_real(torch.from_numpy(np.ascontiguousarray(probe, np.complex64)))
        self.register_buffer("peak", values.norm(dim=-1).max())
        # Parameters of order 1 have the same learning rate for any width of the probe.
        self.values = nn.Parameter(values / self.peak)
        self.log_intensity = nn.Parameter(torch.tensor(log_intensity, dtype=torch.float32))
        n = probe.shape[-1]
        grid = (torch.arange(n) - (n - 1) / 2) * (2 * torch.pi / n)
        self.register_buffer("grid", grid, persistent=False)  # radians a pixel of offset
        self.register_buffer("offset_px", torch.as_tensor(np.asarray(offset_px), dtype=torch.float32))

    def forward(self) -> Tensor:
        """(modes, N, N) complex64; multiplied by the root of a scan's mean counts, the probe of the physics."""
        angle = self.offset_px[:, None] * self.grid
        ramps = torch.complex(torch.cos(angle), torch.sin(angle))
        probe = torch.view_as_complex(self.values * self.peak) * (ramps[0, :, None] * ramps[1])
        return probe * torch.exp(0.5 * self.log_intensity)


class Model(nn.Module):
    """Network and illumination: what is trained and saved.

    ``precision`` is the arithmetic of the network; the physics stays in float32.
    """

    def __init__(self, config: ModelConfig, illumination: Illumination, precision: Precision) -> None:
        super().__init__()
        network = FastNetwork(config) if config.architecture is Architecture.FAST else CnnNetwork(config)
        self.network: FastNetwork | CnnNetwork = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.illumination = illumination
        self.precision = precision

    def prepare_probe(self, probe: Tensor, good: Tensor) -> dict[DetectorSampling, SampledProbe] | None:
        """Prepare the probe for predictions; see `ptychopinn.training.objective.TrainedModel`."""
        return self.network.prepare_probe(probe * probe.shape[-1], good)

    def forward(
        self, counts: Tensor, mean_counts: float, sampled_probes: dict[DetectorSampling, SampledProbe] | None
    ) -> Tensor:
        """Predict the patches of groups from their counts; see `ptychopinn.training.objective.TrainedModel`."""
        N = counts.shape[-1]  # noqa: N806
        low = self.precision is Precision.BFLOAT16
        with torch.autocast(counts.device.type, torch.bfloat16) if low else nullcontext():
            return cast(Tensor, self.network(counts.sqrt() * (N / mean_counts**0.5), sampled_probes))


class FixedIllumination:
    """A model with a fixed illumination during training: what depends only on it is computed once, on first use.

    It is a `ptychopinn.training.objective.TrainedModel`.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._probe: Tensor | None = None
        self._sampled_probes: tuple[Tensor, dict[DetectorSampling, SampledProbe] | None] | None = (
            None  # the good pixels, and the result for them
        )

    def illumination(self) -> Tensor:
        """As `Model.illumination`."""
        if self._probe is None:
            with torch.no_grad():
                self._probe = self._model.illumination()
        return self._probe

    def prepare_probe(self, probe: Tensor, good: Tensor) -> dict[DetectorSampling, SampledProbe] | None:
        """As `Model.prepare_probe`."""
        if probe is not self._probe:
            return self._model.prepare_probe(probe, good)
        if self._sampled_probes is None or self._sampled_probes[0] is not good:
            self._sampled_probes = (good, self._model.prepare_probe(probe, good))
        return self._sampled_probes[1]

    def __call__(
        self, counts: Tensor, mean_counts: float, sampled_probes: dict[DetectorSampling, SampledProbe] | None
    ) -> Tensor:
        """As `Model.forward`."""
        return cast(Tensor, self._model(counts, mean_counts, sampled_probes))


def model_arrays(model: Model) -> dict[str, AnyArray]:
    """The tensors of a model under framework-neutral names.

    Convolutions are (out, in, y, x); the probe is (modes, N, N) complex64 in root mean counts, without the offset.
    """
    arrays = {
        f"network/{name.replace('.', '/')}": tensor.detach().float().cpu().numpy().copy()
        for name, tensor in model.network.state_dict().items()
    }
    light = model.illumination
    probe = (torch.view_as_complex(light.values.detach()) * light.peak).cpu().numpy()
    illumination = IlluminationArrays(probe, light.offset_px.cpu().numpy().copy(), light.log_intensity.item())
    return arrays | illumination_tensors(illumination)


def model_from_arrays(config: ModelConfig, arrays: Mapping[str, AnyArray], precision: Precision) -> Model:
    """The inverse of `model_arrays`. Raises ArchiveError if tensors are missing or do not fit the configuration."""
    light = illumination_from_tensors(config, arrays)
    model = Model(config, Illumination(light.probe, light.offset_px, light.log_intensity), precision)
    names = {name.replace(".", "/"): name for name in model.network.state_dict()}
    shapes = {name: tuple(model.network.state_dict()[inner].shape) for name, inner in names.items()}
    tensors = network_tensors(arrays, shapes)
    model.network.load_state_dict({names[k]: torch.from_numpy(np.ascontiguousarray(v)) for k, v in tensors.items()})
    return model
