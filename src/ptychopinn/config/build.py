"""Configuration models from plain values, with errors in the words of whoever gave the values."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from ptychopinn.errors import ConfigError

ModelT = TypeVar("ModelT", bound=BaseModel)


def build(cls: type[ModelT], values: Mapping[str, object], name_of: Callable[[str], str] = str) -> ModelT:
    """Make a configuration model.

    Parameters
    ----------
    cls:
        The model.
    values:
        Field name to value; text is converted to the field's type. What is missing takes its default.
    name_of:
        What the giver calls a field ("--batch-size").

    Raises
    ------
    ConfigError
        Naming every field that is unknown or out of bounds, its value and the bound.
    """
    try:
        return cls.model_validate(dict(values))
    except ValidationError as error:
        raise explain(error, cls, name_of) from error


def explain(error: ValidationError, cls: type[BaseModel], name_of: Callable[[str], str] = str) -> ConfigError:
    """The one-paragraph `ConfigError` for pydantic's report on ``cls``."""
    problems = []
    for one in error.errors(include_url=False):
        field = str(one["loc"][0]) if one["loc"] else ""
        message = one["msg"].removeprefix("Value error, ").rstrip(".")
        if one["type"] == "extra_forbidden":
            problems.append(f"{name_of(field)} is not known{nearest(field, cls.model_fields)}.")
        elif field and one["type"] != "value_error":
            message = message[0].lower() + message[1:]
            problems.append(f"{name_of(field)} is {_shown(one['input'])}: {message}.")
        else:
            problems.append(f"{message}.")
    return ConfigError(" ".join(dict.fromkeys(problems)), "Change it and try again.")


def nearest(name: str, valid: Iterable[str]) -> str:
    """``"; did you mean ...?"`` for a misspelt name, else ``"; valid are ..."``."""
    valid = list(valid)
    if close := difflib.get_close_matches(name, valid, n=2, cutoff=0.6):
        return f"; did you mean {' or '.join(close)}?"
    return f"; valid are {', '.join(valid)}"


def _shown(value: object) -> str:
    text = str(value) if isinstance(value, str) and value else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
