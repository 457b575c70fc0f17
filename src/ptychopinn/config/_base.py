"""The common base of every configuration model."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    """Frozen, refuses unknown keys; descriptions and bounds live beside each field.

    Attributes
    ----------
    title:
        Of a model that is one of several groups of settings in a section; else empty.
    """

    title: ClassVar[str] = ""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        validate_default=True,
        allow_inf_nan=False,
        protected_namespaces=(),  # model_type is a field's name here; older pydantics warn of it
    )
