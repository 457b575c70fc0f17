"""Settings of a scan that many workers reconstruct in tiles."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from ptychopinn.config.settings import marks
from ptychopinn.config.workers import WorkerOptions


class TilesConfig(WorkerOptions):
    """One scan in tiles."""

    title: ClassVar[str] = "tiles"

    tiles: int | Literal["auto"] | None = Field(
        None,
        title="Tiles",
        description="Reconstruct a large scan in this many tiles. A worker needs memory for one of them. auto: one "
        "tile for each worker, more where the object is large.",
        json_schema_extra=marks(basic=True, unset="the whole scan in one process"),
    )
    passes: int = Field(
        10,
        ge=1,
        le=200,
        title="Passes",
        description="Passes over the tiles; after each one neighbours exchange what they share.",
        json_schema_extra=marks(basic=True, needs="tiles"),
    )

    @model_validator(mode="after")
    def _tiles_are_asked_for(self) -> Self:
        if isinstance(self.tiles, int) and self.tiles < 1:
            raise ValueError(f"{self.tiles} tiles were asked for; give 1 or more, or auto")
        idle = [name for name in WorkerOptions.model_fields if name in self.model_fields_set]
        if self.tiles is None and idle:
            raise ValueError(f"{' and '.join(idle)} has no effect without tiles; set both")
        return self
