"""The common base of every configuration model."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    """A frozen model that refuses unknown keys. Every field has its description and bounds.

    Attributes
    ----------
    title:
        Title of a model that is one group of the settings of a section; else empty.
    """

    title: ClassVar[str] = ""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        validate_default=True,
        allow_inf_nan=False,
        protected_namespaces=(),  # model_type is a field's name here; older pydantics warn of it
    )
