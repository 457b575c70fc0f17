"""The fast architecture: an unrolled solver with learned steps.

The input is one pattern. The network starts with the object patch 1 + 0j. In each iteration it propagates the patch
with the known probe, compares with the measured amplitudes, projects the difference back to the patch (the direction of
an ePIE step), and corrects the patch with convolutions of this difference.
`ptychopinn.training.sampling_schedule` says which pixels of the detector are compared each time, and how coarse the
patch is. The network computes on a 16 x 16 grid for every N. Sources: learned primal-dual (Adler & Oktem, IEEE TMI
37, 2018) for the unrolling; the regularised projection of rPIE (Maiden et al., Optica 4, 736, 2017) for the direction.

Between transforms the pixels of a patch are stored by tiles, (b, GRID^2, pixels of a tile), as the convolutions need
them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor, nn

from ptychopinn.config.model import AmplitudeActivation, ModelConfig
from ptychopinn.training import DetectorSampling, features_width, network_width, sampling_schedule
from ptychopinn.training.constants import (
    AMPLITUDE_LIMIT,
    GRID,
    HEAD_STD,
    MODULUS_FLOOR,
    PROBE_REGULARISATION,
)
from ptychopinn_torch.functions import intensity, polar_less_one

_TILES = GRID * GRID


def amplitude(activation: AmplitudeActivation, x: Tensor) -> Tensor:
    """Map any real tensor to amplitudes of the same shape; 0 gives 1."""
    if activation is AmplitudeActivation.BOUNDED:
        # limit * sigmoid(x + c) with sigmoid(c) = 1 / limit
        return AMPLITUDE_LIMIT * torch.sigmoid(x - math.log(AMPLITUDE_LIMIT - 1.0))
    if activation is AmplitudeActivation.SOFTPLUS:
        return F.softplus(x + math.log(math.expm1(1.0)))
    return torch.exp(x)


def to_tiles(image: Tensor) -> Tensor:
    """(..., n, n) to (..., GRID^2, (n / GRID)^2), tiles and the pixels of a tile row by row."""
    *leading, n, _ = image.shape
    tile = n // GRID
    return image.reshape(*leading, GRID, tile, GRID, tile).transpose(-3, -2).reshape(*leading, _TILES, tile**2)


def from_tiles(tiles: Tensor) -> Tensor:
    """The inverse of `to_tiles`."""
    *leading, _, pixels = tiles.shape
    tile = round(pixels**0.5)
    n = GRID * tile
    return tiles.reshape(*leading, GRID, GRID, tile, tile).transpose(-3, -2).reshape(*leading, n, n)


def upsample_tiles(tiles: Tensor, tile: int) -> Tensor:
    """Upsample to tiles of ``tile`` x ``tile`` pixels by repeating pixels."""
    old = round(tiles.shape[-1] ** 0.5)
    pixels = tiles.reshape(-1, _TILES, old, 1, old, 1)
    return pixels.expand(-1, -1, -1, tile // old, -1, tile // old).reshape(-1, _TILES, tile**2)


def crop_spectrum(image: Tensor, width: int) -> Tensor:
    """Crop (..., N, N) with DC at [0, 0] to the central (..., width, width)."""
    half, rest = width // 2, image.shape[-1] - width // 2
    if width == image.shape[-1]:
        return image
    rows = torch.cat([image[..., :half, :], image[..., rest:, :]], dim=-2)
    return torch.cat([rows[..., :half], rows[..., rest:]], dim=-1)


def sum_modes(values: Tensor) -> Tensor:
    """Sum over modes, (b, modes, ...) to (b, ...), without a copy for one mode."""
    return values.squeeze(1) if values.shape[1] == 1 else values.sum(dim=1)


class ResidualBlock(nn.Module):
    """A 3 x 3 convolution with a skip connection."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.conv.weight)
        nn.init.zeros_(cast(Tensor, self.conv.bias))

    def forward(self, h: Tensor) -> Tensor:
        """(b, GRID^2, width) to the same."""
        picture = h.reshape(-1, GRID, GRID, h.shape[-1]).permute(0, 3, 1, 2)
        change = cast(Tensor, self.conv(F.gelu(picture)))
        return h + change.permute(0, 2, 3, 1).flatten(1, 2)


class Embedding(nn.Module):
    """Adds a linear function of two inputs to the features of every grid cell, without concatenation or bias."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Linear(inputs, width, bias=False).weight

    def forward(self, h: Tensor, first: Tensor, second: Tensor) -> Tensor:
        """(b, GRID^2, width), (b, GRID^2, p) and (b, GRID^2, q), p + q the inputs, to (b, GRID^2, width)."""
        weights = torch.split(self.weight, [first.shape[-1], second.shape[-1]], dim=1)
        # With so few inputs, lower precision saves nothing.
        with torch.autocast(h.device.type, enabled=False):
            for part, weight in zip((first, second), weights, strict=True):
                h = torch.addmm(h.flatten(0, 1), part.flatten(0, 1), weight.T).reshape(h.shape)
        return h


class MixingBlock(nn.Module):
    """Mixes all grid cells: per channel, one matrix acts along columns and one along rows.

    The Fourier transform, which relates a pattern to its object, has this form.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.enter = nn.Linear(width, width)
        self.down = nn.Parameter(torch.randn(width, GRID, GRID) * GRID**-0.5)
        self.along = nn.Parameter(torch.randn(width, GRID, GRID) * GRID**-0.5)
        self.leave = nn.Linear(width, width)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(self, h: Tensor) -> Tensor:
        """(b, GRID^2, width) to the same."""
        x = F.gelu(self.enter(h)).reshape(-1, GRID, GRID, h.shape[-1])
        x = torch.einsum("byxc,cyt->btxc", x, self.down)
        x = torch.einsum("btxc,cxs->btsc", x, self.along)
        return h + cast(Tensor, self.leave(F.gelu(x.flatten(1, 2))))


@dataclass(frozen=True, eq=False)
class _ProbeCentre:
    """The probe at one resolution, shared by the samplings of that resolution."""

    # (..., modes, GRID^2, pixels) complex64: the probe on the patch, and the factor for back-projected differences.
    inner: Tensor
    direction: Tensor
    alone: Tensor  # (..., modes, N, N) complex64, the far field of the probe
    good: Tensor  # (N, N) float32, 1 where the detector measured

    @classmethod
    def of(cls, sampling: DetectorSampling, probe: Tensor, good: Tensor) -> _ProbeCentre:
        """At the resolution of a sampling."""
        n, margin = sampling.n, (sampling.N - sampling.n) // 2
        if probe.shape[-1] > sampling.N:
            spectrum = torch.fft.fft2(torch.fft.ifftshift(probe, dim=(-2, -1)), norm="ortho")
            probe = torch.fft.fftshift(torch.fft.ifft2(crop_spectrum(spectrum, sampling.N), norm="ortho"), dim=(-2, -1))
        # With the patch in the corner, every stride-th frequency is a transform of n pixels.
        probe = torch.roll(probe, (-margin, -margin), dims=(-2, -1))
        inner = to_tiles(probe[..., :n, :n])
        power = (inner.abs() ** 2).sum(dim=-3, keepdim=True)
        return cls(
            inner=inner,
            direction=inner.conj() / (power + PROBE_REGULARISATION * power.amax(dim=(-2, -1), keepdim=True)),
            alone=torch.fft.fft2(probe, norm="ortho"),
            good=crop_spectrum(good, sampling.N),
        )


def sampling_ramps(sampling: DetectorSampling) -> Tensor:
    """Factors on a probe for propagation to the detector pixels of a sampling, and for the way back.

    Returns
    -------
    (2, GRID^2, pixels) complex64. The second factor compensates for the detector pixels that are not used.
    """
    pixel = torch.arange(sampling.n)
    y, x = ((-2 * torch.pi * first / sampling.N) * pixel for first in sampling.offset)
    angle = y[:, None] + x
    ramp = to_tiles(torch.polar(torch.ones_like(angle), angle)) / sampling.N
    return torch.stack([ramp, ramp.conj() * sampling.stride**2])


@dataclass(frozen=True, eq=False)
class SampledProbe:
    """The probe prepared for a `DetectorSampling`."""

    # (..., modes, GRID^2, pixels) complex64: factors on the patch less 1 before propagation, and on the back-propagated
    # difference.
    probe: Tensor
    direction: Tensor
    alone: Tensor  # (..., modes, n, n) complex64, the far field for an object that is 1 everywhere
    good: Tensor  # (n, n) float32, 1 where the detector measured

    @classmethod
    def of(cls, sampling: DetectorSampling, probe: Tensor, good: Tensor) -> SampledProbe:
        """From a probe (modes, N, N), or (b, modes, N, N), one per pattern, and good pixels (N, N)."""
        return cls.from_sampling(
            sampling, _ProbeCentre.of(sampling, probe, good), sampling_ramps(sampling).to(probe.device)
        )

    @classmethod
    def from_sampling(cls, sampling: DetectorSampling, light: _ProbeCentre, ramps: Tensor) -> SampledProbe:
        """From a probe at the resolution of the sampling, with its `sampling_ramps`."""
        return cls(
            probe=light.inner * ramps[0],
            direction=light.direction * ramps[1],
            alone=light.alone[..., *sampling.pixels].contiguous(),
            good=light.good[..., *sampling.pixels].contiguous(),
        )

    def far_field(self, more: Tensor) -> Tensor:
        """Far field (b, modes, n, n) of patches less 1, (b, GRID^2, pixels); the object is 1 outside a patch."""
        field: Tensor = self.alone + torch.fft.fft2(from_tiles(self.probe * more[:, None]))
        return field


class FastNetwork(nn.Module):
    """Diffraction amplitudes to object patches, one pattern at a time."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.activation, self.patches_per_group = config.amp_activation, config.patches_per_group
        self.samplings = sampling_schedule(config)
        self._distinct = list(dict.fromkeys(self.samplings))
        for number, sampling in enumerate(self._distinct):
            self.register_buffer(f"ramps_{number}", sampling_ramps(sampling), persistent=False)
        self.seen_width = features_width(config)
        width = network_width(config)
        pixels = [sampling.tile**2 for sampling in self.samplings]
        self.embed_pattern = nn.Linear((self.seen_width // GRID) ** 2, width)
        self.mix = MixingBlock(width)
        self.embed = nn.ModuleList(Embedding(4 * count, width) for count in pixels)
        self.body = nn.ModuleList(ResidualBlock(width) for _ in pixels)
        self.head = nn.ModuleList(nn.Linear(width, 2 * count) for count in pixels)
        for head in self.head:
            nn.init.normal_(cast(nn.Linear, head).weight, std=HEAD_STD)
            nn.init.zeros_(cast(nn.Linear, head).bias)

    def prepare_probe(self, probe: Tensor, good: Tensor) -> dict[DetectorSampling, SampledProbe]:
        """Prepare the probe for predictions, as `Model` does, but in the scale of the amplitudes."""
        lights = {
            N: _ProbeCentre.of(sampling, probe, good)
            for N, sampling in {each.N: each for each in self.samplings}.items()
        }
        return {
            sampling: SampledProbe.from_sampling(sampling, lights[sampling.N], self.get_buffer(f"ramps_{number}"))
            for number, sampling in enumerate(self._distinct)
        }

    def forward(self, amplitudes: Tensor, sampled_probes: dict[DetectorSampling, SampledProbe]) -> Tensor:
        """Predict the patches of groups, each from its own pattern.

        (g, C, N, N) float32 amplitudes, root mean square near 1, DC at [0, 0], zero at bad pixels, to (g, P, n, n)
        complex64, n the patch size, P the smaller of C and ``patches_per_group``.
        """
        amplitudes = amplitudes[:, : self.patches_per_group]
        patches = self._solve(amplitudes.flatten(0, 1), sampled_probes)
        return patches.reshape(*amplitudes.shape[:2], *patches.shape[1:])

    def _solve(self, amplitudes: Tensor, sampled_probes: dict[DetectorSampling, SampledProbe]) -> Tensor:
        """(b, N, N) amplitudes to (b, n, n) patches."""
        b = len(amplitudes)
        centres = {
            width: crop_spectrum(amplitudes, width)
            for width in {self.seen_width, *(sampling.N for sampling in self.samplings)}
        }
        h = self.mix(self.embed_pattern(to_tiles(torch.log1p(centres[self.seen_width])))).float()
        x = phase = amplitudes.new_zeros(b, _TILES, 1)
        more = torch.complex(x, phase)  # the patch less 1
        for sampling, embed, body, head in zip(self.samplings, self.embed, self.body, self.head, strict=True):
            light, pixels = sampled_probes[sampling], sampling.tile**2
            if x.shape[-1] < pixels:
                x, phase, more = (upsample_tiles(values, sampling.tile) for values in (x, phase, more))
            measured = centres[sampling.N][:, *sampling.pixels]
            field = light.far_field(more)
            modelled = sum_modes(intensity(field))
            ratio = light.good * (measured * torch.rsqrt(modelled + MODULUS_FLOOR) - 1)
            back = to_tiles(torch.fft.ifft2(field * ratio[:, None], norm="forward"))
            step = sum_modes(light.direction * back)
            h = body(embed(h, torch.view_as_real(step).flatten(2), torch.view_as_real(more).flatten(2)))
            change, turn = head(h).float().split(pixels, dim=-1)
            x, phase = x + change, phase + turn
            more = polar_less_one(amplitude(self.activation, x), phase)
        return from_tiles(more) + 1
