"""The published CNN: the patterns of a group as channels, one encoder, two decoders.

Source: Hoidn, Mishra & Mehta, "Physics constrained unsupervised deep learning for rapid, high resolution scanning
coherent diffraction reconstruction", Sci. Rep. 13, 22789 (2023).
"""

from __future__ import annotations

from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor, nn

from ptychopinn.config.model import ModelConfig
from ptychopinn.training import BORDER_CHANNELS, level_filters
from ptychopinn_torch.network import amplitude


class DoubleConvolution(nn.Module):
    """Two 3 x 3 convolutions with ReLU."""

    def __init__(self, entering: int, leaving: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(entering, leaving, 3, padding=1)
        self.conv2 = nn.Conv2d(leaving, leaving, 3, padding=1)

    def forward(self, h: Tensor) -> Tensor:
        """(g, entering, y, x) to (g, leaving, y, x)."""
        return F.relu(self.conv2(F.relu(self.conv1(h))))


class Decoder(nn.Module):
    """From the deepest grid to one image per patch; ``filters`` are those of the encoder's levels."""

    def __init__(self, config: ModelConfig, filters: list[int]) -> None:
        super().__init__()
        patches, rising = config.patches_per_group, filters[::-1]
        width = rising[-1]
        if not config.pad_object:
            rising.append(width)
        self.levels = nn.ModuleList(DoubleConvolution(a, b) for a, b in pairwise(rising))
        self.centre = nn.Conv2d(width, patches, 3, padding=1)
        self.probe_big = config.probe_big
        if config.probe_big:
            channels = BORDER_CHANNELS * patches
            self.border_level = DoubleConvolution(width, channels)
            self.border = nn.Conv2d(channels, patches, 3, padding=1)

    def forward(self, h: Tensor) -> Tensor:
        """(g, deepest, y, x) to (g, P, n, n)."""
        for level in self.levels:
            h = _upsample(level(h))
        picture: Tensor = self.centre(h)
        if not self.probe_big:
            return picture
        around = (picture.shape[-1] // 2,) * 4
        border: Tensor = self.border(_upsample(self.border_level(h)))
        return F.pad(picture, around) + border * (1 - F.pad(torch.ones_like(picture), around))


class CnnNetwork(nn.Module):
    """Diffraction amplitudes of groups to object patches."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.activation = config.amp_activation
        filters = level_filters(config)
        entering = [config.patterns_per_group, *filters[:-1]]
        self.encoder = nn.ModuleList(DoubleConvolution(a, b) for a, b in zip(entering, filters, strict=True))
        self.amplitude_decoder = Decoder(config, filters)
        self.phase_decoder = Decoder(config, filters)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):  # as published (Glorot & Bengio, AISTATS 2010)
                nn.init.xavier_normal_(module.weight)
                nn.init.zeros_(cast(Tensor, module.bias))

    def prepare_probe(self, probe: Tensor, good: Tensor) -> None:
        """None: this network knows probe and detector only from its training."""

    def forward(self, amplitudes: Tensor, sampled_probes: None) -> Tensor:
        """Predict the patches of groups.

        (g, C, N, N) float32 amplitudes, root mean square near 1, DC at [0, 0], zero at bad pixels, to (g, P, n, n)
        complex64, P that of ``patches_per_group``.
        """
        h = torch.fft.fftshift(amplitudes, dim=(-2, -1)).contiguous(memory_format=torch.channels_last)
        for level in self.encoder:
            h = F.max_pool2d(level(h), 2)
        phase = torch.pi * torch.tanh(self.phase_decoder(h).float())
        return torch.polar(amplitude(self.activation, self.amplitude_decoder(h).float()), phase)


def _upsample(h: Tensor) -> Tensor:
    return F.interpolate(h, scale_factor=2, mode="nearest")
