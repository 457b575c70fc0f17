"""Settings of a reconstruction that decides by itself."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

from pydantic import Field

from ptychopinn.config._base import Config
from ptychopinn.config.settings import marks


class Freedom(StrEnum):
    """What passes may change beside the object."""

    PROBE = "probe"
    POSITIONS = "positions"
    FLUX = "flux"
    BACKGROUND = "background"
    MODES = "modes"  # how many incoherent ones the probe has
    VARIATION = "variation"  # of the probe over the scan


class AutomaticConfig(Config):
    """How long a reconstruction may take, and what it may change."""

    title: ClassVar[str] = "reconstruction"

    max_time: float | None = Field(
        None,
        gt=0,
        title="Maximum time",
        description="Give the best picture of this many seconds, counted from when the scan was read.",
        json_schema_extra=marks(basic=True, unit="s", unset="until passes no longer pay"),
    )
    uncertainty: bool = Field(
        False,
        title="Standard errors",
        description="Estimate the standard errors of phase and amplitude and the resolution, from passes over two "
        "halves of the patterns. It takes as long as 20 passes more, which the maximum time does not count.",
    )
    may_free: tuple[Freedom, ...] = Field(
        tuple(Freedom),
        title="May free",
        description="What passes may change beside the object, if held-out patterns are explained better by it.",
    )
