"""The common base of every configuration model."""

from __future__ import annotations

from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic.functional_validators import ModelWrapValidatorHandler
from pydantic_core import InitErrorDetails, PydanticCustomError

from ptychopinn.config.build import suggestion
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

    @model_validator(mode="wrap")
    @classmethod
    def _suggest_names(cls, values: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Say which name may be meant where one is not known."""
        try:
            return handler(values)
        except ValidationError as error:
            details = [_with_suggestion(one, cls) for one in error.errors(include_url=False)]
            raise ValidationError.from_exception_data(error.title, details) from None

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


def _with_suggestion(error: Any, cls: type[BaseModel]) -> InitErrorDetails:
    """One of pydantic's errors, to be raised again."""
    message = error["msg"]
    if error["type"] == "extra_forbidden" and len(error["loc"]) == 1:
        message = f"{error['loc'][0]} is not known{suggestion(str(error['loc'][0]), cls.model_fields)}"
    same = PydanticCustomError(error["type"], message)
    return InitErrorDetails(type=same, loc=error["loc"], input=error["input"])
