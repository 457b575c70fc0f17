"""One scan over many workers, each with a tile of it."""

from __future__ import annotations

from ptychopinn.tiled.run import tiled_run

__all__ = ["tiled_run"]
