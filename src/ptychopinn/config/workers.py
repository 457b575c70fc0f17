"""Where jobs run, and how often they are tried."""

from __future__ import annotations

from typing import ClassVar, Self

from pydantic import Field, model_validator

from ptychopinn.config._base import Config
from ptychopinn.config.settings import marks


class WorkerOptions(Config):
    """Workers for the scans of a batch, the tiles of a scan, or the candidates of a study."""

    title: ClassVar[str] = "workers"

    workers: int | None = Field(
        None,
        ge=1,
        le=1024,
        title="Workers",
        description="Scans or tiles that are worked on at a time on this machine; with GPUs at most one for each.",
        json_schema_extra=marks(basic=True, unset="one for each GPU, else one"),
    )
    scheduler: str | None = Field(
        None,
        title="Scheduler",
        description="Address of a Dask scheduler, such as tcp://host:8786. Its workers do the scans, tiles or "
        "candidates; each has one thread and sees the same files.",
        json_schema_extra=marks(basic=True, unset="processes on this machine"),
    )
    retries: int = Field(
        2,
        ge=0,
        le=1000,
        title="Retries",
        description="Further tries of a scan, tile or candidate, if its process was killed or ran out of memory. The "
        "last one runs alone. What was refused is not tried again.",
        json_schema_extra=marks(basic=True),
    )

    @model_validator(mode="after")
    def _workers_are_of_one_kind(self) -> Self:
        if self.scheduler is not None and self.workers is not None:
            raise ValueError(f"the scheduler {self.scheduler} has workers of its own; leave workers out")
        return self
