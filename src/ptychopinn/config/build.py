"""Configuration models from plain values, with errors in the words of whoever gave the values."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from ptychopinn.errors import ConfigError

_LONGEST_NAME = 60
_LONGEST_TEXT = 2000

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
    except (RecursionError, OverflowError) as error:
        raise ConfigError(f"The values cannot be read: {error}.", "Give plain numbers and words.") from error


def explain(error: ValidationError, cls: type[BaseModel], name_of: Callable[[str], str] = str) -> ConfigError:
    """The one-paragraph `ConfigError` for pydantic's report on ``cls``."""
    problems: list[str] = []
    for one in error.errors(include_url=False):
        field = str(one["loc"][0]) if one["loc"] else ""
        message = one["msg"].removeprefix("Value error, ").rstrip(".")
        if one["type"] == "extra_forbidden":
            problems.append(f"{shown(name_of(field))} is not known{nearest(field, cls.model_fields)}.")
        elif field and one["type"] != "value_error":
            message = message[0].lower() + message[1:]
            problems.append(f"{name_of(field)} is {shown(one['input'])}: {message}.")
        else:
            problems.append(f"{message}.")
    return ConfigError(told(list(dict.fromkeys(problems))), "Change it and try again.")


def told(problems: Sequence[str]) -> str:
    """Problems as one paragraph that a person can still read: as many as fit, at least one."""
    lengths = accumulate(len(problem) for problem in problems)
    fitting = max(sum(length <= _LONGEST_TEXT for length in lengths), 1)
    more = len(problems) - fitting
    return " ".join(problems[:fitting]) + (f" And {more} more." if more > 0 else "")


def nearest(name: str, valid: Iterable[str]) -> str:
    """``"; did you mean ...?"`` for a misspelt name, else ``"; valid are ..."``."""
    valid = list(valid)
    if close := difflib.get_close_matches(name[:_LONGEST_NAME], valid, n=2, cutoff=0.6):
        return f"; did you mean {' or '.join(close)}?"
    return f"; valid are {', '.join(valid)}"


def shown(value: object) -> str:
    """A value in at most 60 characters."""
    text = value if isinstance(value, str) and value else reprlib.repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
