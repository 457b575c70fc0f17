"""The common base of every configuration model."""

from __future__ import annotations

from typing import ClassVar, Self

from pydantic import BaseModel, ConfigDict, model_validator

from ptychopinn.config.settings import is_off, marks_of


class Config(BaseModel):
    """Frozen, and refuses unknown keys; each field holds its help, bounds and marks (`ptychopinn.config.settings`)."""

    title: ClassVar[str] = ""  # heading of the model's settings in help, panes and documentation

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        validate_default=True,
        allow_inf_nan=False,
        protected_namespaces=(),  # model_type is a field's name here; older pydantics warn of it
    )

    @model_validator(mode="after")
    def _refuse_what_has_no_effect(self) -> Self:
        """Refuse a field that differs from its default while the field that it needs is off."""
        fields = type(self).model_fields
        idle: dict[str, list[str]] = {}
        for name, field in fields.items():
            needed = marks_of(field).get("needs")
            if needed and getattr(self, name) != field.default and is_off(getattr(self, needed)):
                idle.setdefault(needed, []).append(name)
        for needed, names in idle.items():
            raise ValueError(f"{' and '.join(names)} has no effect without {needed}; set both")
        return self
