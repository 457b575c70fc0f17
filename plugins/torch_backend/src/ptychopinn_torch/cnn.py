"""The published architecture: a group's patterns as channels, one encoder, two decoders.

Source: Hoidn, Mishra & Mehta, "Physics constrained unsupervised deep learning for rapid, high resolution scanning
coherent diffraction reconstruction", Sci. Rep. 13, 22789 (2023).
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor, nn

from ptychopinn.config.model import ModelConfig
from ptychopinn_torch.network import amplitude

_DEEPEST = 128  # filters of the last level, times n_filters_scale
_BOTTOM = 8  # width of the deepest grid
_BORDER_CHANNELS = 4  # a pattern, that draw the border of a big probe


def level_filters(size: int, scale: float) -> list[int]:
    """Filters of each encoder level: (32, 64, 128) at N = 64, one level more each time N doubles."""
    levels = (size // _BOTTOM).bit_length() - 1
    return [max(1, round(scale * _DEEPEST / 2 ** (levels - 1 - k))) for k in range(levels)]


class _DoubleConv(nn.Module):
    """Two 3 x 3 convolutions with ReLU."""

    def __init__(self, entering: int, leaving: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(entering, leaving, 3, padding=1)
        self.conv2 = nn.Conv2d(leaving, leaving, 3, padding=1)

    def forward(self, h: Tensor) -> Tensor:
        """(b, entering, y, x) to (b, leaving, y, x)."""
        return F.relu(self.conv2(F.relu(self.conv1(h))))


class _Decoder(nn.Module):
    """From the deepest grid to one picture a pattern, (b, patterns, n, n)."""

    def __init__(self, filters: list[int], patterns: int, *, pad_object: bool, probe_big: bool) -> None:
        super().__init__()
        rising = filters[::-1]
        self.levels = nn.ModuleList(_DoubleConv(a, b) for a, b in zip(rising[:-1], rising[1:], strict=True))
        self.pad_object, self.probe_big = pad_object, probe_big
        width = rising[-1]
        self.centre = nn.Conv2d(width, patterns, 3, padding=1)
        if not pad_object:
            self.last = _DoubleConv(width, width)
        elif probe_big:
            self.border_level = _DoubleConv(width, _BORDER_CHANNELS * patterns)
            self.border = nn.Conv2d(_BORDER_CHANNELS * patterns, patterns, 3, padding=1)

    def forward(self, h: Tensor) -> Tensor:
        """(b, deepest, 8, 8) to (b, patterns, n, n)."""
        for level in self.levels:
            h = _double(level(h))
        if not self.pad_object:
            return cast(Tensor, self.centre(_double(self.last(h))))
        picture = cast(Tensor, self.centre(h))
        if not self.probe_big:
            return picture
        margin = picture.shape[-1] // 2
        border = cast(Tensor, self.border(_double(self.border_level(h))))
        inside = F.pad(torch.ones_like(picture), (margin,) * 4)
        return F.pad(picture, (margin,) * 4) + border * (1 - inside)


class CnnNetwork(nn.Module):
    """Groups of diffraction amplitudes to object patches.

    Parameters
    ----------
    config:
        Model configuration; N, gridsize, n_filters_scale, amp_activation, pad_object and probe_big are used.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        filters = level_filters(config.N, config.filters_scale)
        patterns = config.patterns_per_group
        self.activation = config.amp_activation
        entering = [patterns, *filters[:-1]]
        self.encoder = nn.ModuleList(_DoubleConv(a, b) for a, b in zip(entering, filters, strict=True))
        self.amplitude_decoder = _Decoder(
            filters, patterns, pad_object=config.pads_object, probe_big=config.draws_border
        )
        self.phase_decoder = _Decoder(filters, patterns, pad_object=config.pads_object, probe_big=config.draws_border)

    def forward(self, amplitudes: Tensor, probe: Tensor, good: Tensor) -> Tensor:
        """Predict the patches of groups.

        Parameters
        ----------
        amplitudes:
            (g, C, N, N) float32, root mean square near 1, DC at [0, 0], zero at bad pixels.
        probe, good:
            Not looked at: this network knows the probe from its training alone.

        Returns
        -------
        (g, C, n, n) complex64.
        """
        h = torch.fft.fftshift(amplitudes, dim=(-2, -1)).contiguous(memory_format=torch.channels_last)
        for level in self.encoder:
            h = F.max_pool2d(level(h), 2)
        magnitude = amplitude(self.activation, self.amplitude_decoder(h).float())
        phase = torch.pi * torch.tanh(self.phase_decoder(h).float())
        return torch.polar(magnitude, phase)


def _double(h: Tensor) -> Tensor:
    return F.interpolate(h, scale_factor=2, mode="nearest")
