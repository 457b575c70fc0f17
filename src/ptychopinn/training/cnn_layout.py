"""The plan of the published network, which every backend builds alike."""

from __future__ import annotations

from ptychopinn.config.model import ModelConfig

BORDER_CHANNELS = 4  # a patch, that draw the coarse border of a big probe
_DEEPEST = 128  # filters of the last level, times the width scale
_BOTTOM = 8  # width of the deepest grid


def level_filters(config: ModelConfig) -> list[int]:
    """Filters of each encoder level: scale * (32, 64, 128) at N = 64, one level more each time N doubles."""
    levels = (config.N // _BOTTOM).bit_length() - 1
    return [max(1, round(config.width_scale * _DEEPEST / 2 ** (levels - 1 - k))) for k in range(levels)]
