"""Layer widths of the published CNN, the same in every backend."""

from __future__ import annotations

from ptychopinn.config.model import ModelConfig

BORDER_CHANNELS = 4  # per patch, for the coarse border with probe_big
_DEEPEST = 128  # filters of the last level, times the width scale
_BOTTOM = 8  # width of the deepest grid


def level_filters(config: ModelConfig) -> list[int]:
    """Filters of each encoder level: scale * (32, 64, 128) at N = 64, and one more level whenever N doubles."""
    levels = (config.N // _BOTTOM).bit_length() - 1
    return [max(1, round(config.width_scale * _DEEPEST / 2 ** (levels - 1 - k))) for k in range(levels)]
