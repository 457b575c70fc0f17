"""The fast architecture: an unrolled solver whose every step is learned.

One pattern alone goes in. The network holds an object patch, starting from 1 + 0j; a few times it sends the patch
through the physics under the known probe, compares with the measured amplitudes, projects the difference back to the
patch (the direction in which ePIE would step), and corrects the patch by convolutions that see this difference.
Arithmetic is spent on a 16 x 16 grid whatever N is. Sources: learned primal-dual (Adler & Oktem, IEEE TMI 37, 2018)
for the unrolling; the regularised projection of rPIE (Maiden et al., Optica 4, 736, 2017) for the direction.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor, nn

from ptychopinn.config.model import AmplitudeActivation, ModelConfig
from ptychopinn.training.constants import AMPLITUDE_LIMIT, GRID, MODULUS_FLOOR, PROBE_REGULARISATION, WIDTH


def amplitude(activation: AmplitudeActivation, x: Tensor) -> Tensor:
    """Map any real tensor to amplitudes of the same shape; 0 gives 1."""
    if activation is AmplitudeActivation.BOUNDED:
        # limit * sigmoid(x + c) with sigmoid(c) = 1 / limit
        return AMPLITUDE_LIMIT * torch.sigmoid(x - torch.log(torch.tensor(AMPLITUDE_LIMIT - 1.0)))
    if activation is AmplitudeActivation.SOFTPLUS:
        return F.softplus(x + torch.log(torch.expm1(torch.tensor(1.0))))
    return torch.exp(x)


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions beside the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(cast(Tensor, self.conv2.bias))

    def forward(self, h: Tensor) -> Tensor:
        """(b, width, GRID, GRID) to the same."""
        return h + cast(Tensor, self.conv2(F.gelu(self.conv1(F.gelu(h)))))


class MixingBlock(nn.Module):
    """Lets every place of the grid speak to every other, one small matrix shared by all channels of a head."""

    def __init__(self, width: int, heads: int = 8) -> None:
        super().__init__()
        self.heads = heads
        self.enter = nn.Conv2d(width, width, 1)
        self.mix = nn.Parameter(torch.randn(heads, GRID * GRID, GRID * GRID) * 0.02)
        self.leave = nn.Conv2d(width, width, 1)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(cast(Tensor, self.leave.bias))

    def forward(self, h: Tensor) -> Tensor:
        """(b, width, GRID, GRID) to the same."""
        b, width = h.shape[:2]
        x = F.gelu(self.enter(h)).reshape(b, self.heads, width // self.heads, GRID * GRID)
        x = torch.einsum("bhcs,hst->bhct", x, self.mix).reshape(b, width, GRID, GRID)
        return h + cast(Tensor, self.leave(F.gelu(x)))


class FastNetwork(nn.Module):
    """Diffraction amplitudes to object patches, one pattern at a time.

    Parameters
    ----------
    config:
        Model configuration; its N, width_scale, steps, patch_size, patches_per_group and amp_activation are
        used.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.activation = config.amp_activation
        self.N, self.patch_size, self.patches_per_group = config.N, config.patch_size, config.patches_per_group
        width = max(8, 8 * round(WIDTH * config.width_scale / 8))
        self.block = self.patch_size // GRID  # 1 at N = 32 with a padded object
        wide = self.N // GRID
        self.embed_pattern = nn.Conv2d(2 * wide * wide, width, 1)
        self.mix = MixingBlock(width)
        seen, steps = 4 * self.block**2, range(config.steps)
        self.embed = nn.ModuleList(nn.Conv2d(seen, width, 3, padding=1) for _ in steps)
        self.body = nn.ModuleList(ResidualBlock(width) for _ in steps)
        self.head = nn.ModuleList(nn.Conv2d(width, 2 * self.block**2, 3, padding=1) for _ in steps)
        for head in self.head:
            nn.init.normal_(cast(nn.Conv2d, head).weight, std=1e-3)
            nn.init.zeros_(cast(Tensor, cast(nn.Conv2d, head).bias))

    def forward(self, amplitudes: Tensor, probe: Tensor, good: Tensor) -> Tensor:
        """Predict the patches of groups, each from its own pattern.

        Parameters
        ----------
        amplitudes:
            (g, C, N, N) float32, root mean square near 1, DC at [0, 0], zero at bad pixels.
        probe:
            (modes, N, N) complex64 in the same scale.
        good:
            (N, N) float32, DC at [0, 0]: 1 where the detector measured, else 0.

        Returns
        -------
        (g, P, n, n) complex64, n the patch size; P is the smaller of C and ``patches_per_group``.
        """
        amplitudes = amplitudes[:, : self.patches_per_group]
        patches = self._solve(amplitudes.flatten(0, 1), probe, good)
        return patches.reshape(*amplitudes.shape[:2], *patches.shape[1:])

    def _solve(self, amplitudes: Tensor, probe: Tensor, good: Tensor) -> Tensor:
        """(b, N, N) amplitudes to (b, n, n) patches."""
        n, margin = self.patch_size, (self.N - self.patch_size) // 2
        # The patch lies in the corner: the pattern is the same, and rows that are empty need no transform.
        probe = torch.roll(probe, (-margin, -margin), dims=(-2, -1))
        inner = probe[..., :n, :n]
        power = (inner.abs() ** 2).sum(dim=0)
        direction = inner.conj() / (power + PROBE_REGULARISATION * power.max())
        far_alone = torch.fft.fft2(probe, norm="ortho")
        h = self.embed_pattern(self._pattern_features(amplitudes))
        h = self.mix(h)
        x = torch.zeros(len(amplitudes), n, n, device=amplitudes.device)
        phase = torch.zeros_like(x)
        patch = torch.complex(torch.ones_like(x), phase)
        for embed, body, head in zip(self.embed, self.body, self.head, strict=True):
            rows = torch.fft.fft(inner * (patch - 1)[:, None], n=self.N, dim=-1, norm="ortho")
            field = far_alone + torch.fft.fft(rows, n=self.N, dim=-2, norm="ortho")  # outside the patch the object is 1
            modelled = (field.real**2 + field.imag**2).sum(dim=1)
            ratio = good * (amplitudes * torch.rsqrt(modelled + MODULUS_FLOOR) - 1)
            columns = torch.fft.ifft(field * ratio[:, None], dim=-2, norm="ortho")[..., :n, :]
            back = torch.fft.ifft(columns, dim=-1, norm="ortho")[..., :n]
            step = (direction * back).sum(dim=1)
            seen = torch.stack([step.real, step.imag, patch.real - 1, patch.imag], dim=1)
            h = body(h + embed(F.pixel_unshuffle(seen, self.block)))
            change = F.pixel_shuffle(head(h), self.block).float()
            x, phase = x + change[:, 0], phase + change[:, 1]
            patch = torch.polar(amplitude(self.activation, x), phase)
        return patch

    def _pattern_features(self, amplitudes: Tensor) -> Tensor:
        """(b, 2 (N/GRID)^2, GRID, GRID): the amplitudes, compressed, and the autocorrelation of the exit wave."""
        intensity = amplitudes**2
        auto = torch.fft.ifft2(intensity).real * 4
        compressed = torch.log1p(amplitudes)
        features = torch.stack([compressed, auto], dim=1)
        features = torch.fft.fftshift(features, dim=(-2, -1))
        return F.pixel_unshuffle(features, self.N // GRID)
