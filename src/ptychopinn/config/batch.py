"""Settings of a batch: one workflow over many scans."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, ClassVar, Self

from pydantic import Field, model_validator

from ptychopinn.config._base import Config
from ptychopinn.config.settings import marks
from ptychopinn.config.workers import WorkerOptions


class Workflow(StrEnum):
    """What a batch does with each scan."""

    RECONSTRUCT = "reconstruct"
    TRAIN = "train"
    INFER = "infer"
    EVALUATE = "evaluate"


class BatchItem(Config):
    """A scan of a batch with its own settings. A plain word is its `path`."""

    path: str = Field(description="The scan file; evaluate: the reconstruction. It may be a pattern: scans/*.npz.")
    name: str | None = Field(
        None, description="Name of its run directory (default: that of the file without its suffix)."
    )
    start: str | None = Field(None, description="Its own `start`.")
    reference: str | None = Field(None, description="Its own `reference`.")
    scan: str | None = Field(None, description="evaluate: the scan of the reconstruction.")
    settings: dict[str, dict[str, Any]] = Field({}, description="Its own settings: section, field, value.")

    @model_validator(mode="before")
    @classmethod
    def _read_word(cls, value: object) -> object:
        return {"path": value} if isinstance(value, str) else value


class BatchConfig(WorkerOptions):
    """Scans, and what is done with each of them."""

    title: ClassVar[str] = "batch"

    scans: tuple[BatchItem, ...] = Field(
        (),
        title="Scans",
        description="Paths and patterns such as scans/*.npz, or mappings with path, name, start, reference, scan and "
        "settings.",
    )
    workflow: Workflow = Field(
        Workflow.RECONSTRUCT,
        title="Workflow",
        description="What is done with each scan: reconstruct, train, infer or evaluate.",
        json_schema_extra=marks(basic=True),
    )
    start: str = Field(
        "auto",
        title="Model",
        description="What each scan starts with: a run directory, a model archive, an installed model, pretrained or "
        "none. auto: reconstruct takes the installed model that fits, train a new network; infer needs a model.",
        json_schema_extra=marks(basic=True),
    )
    reference: str | None = Field(
        None,
        title="Reference",
        description="The trusted object that evaluate compares each reconstruction with.",
        json_schema_extra=marks(basic=True),
    )
    chain: bool = Field(
        False,
        title="Chain",
        description="Do the scans in their order, and start each from the one before: train from its model and probe, "
        "reconstruct from its probe. For a time series or a tomogram.",
        json_schema_extra=marks(basic=True),
    )

    @model_validator(mode="after")
    def _chain_is_possible(self) -> Self:
        if self.chain and self.workflow not in (Workflow.RECONSTRUCT, Workflow.TRAIN):
            raise ValueError(f"chain has no effect on {self.workflow}; use it with reconstruct or train")
        if self.chain and (self.workers or 1) > 1:
            raise ValueError(f"a chain is done one scan after another, not by {self.workers} workers; leave one out")
        return self
