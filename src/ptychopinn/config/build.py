"""Build configuration models from plain values; errors use the caller's names for the fields."""

from __future__ import annotations

import difflib
import reprlib
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Any, TypeAlias, TypeVar

from pydantic import BaseModel, ValidationError

from ptychopinn.errors import ConfigError

_MAX_NAME = 60
_MAX_TEXT = 2000
_MAX_PROBLEMS = 20

ModelT = TypeVar("ModelT", bound=BaseModel)
NameOf: TypeAlias = Callable[[Sequence[str]], str]
"""The caller's name for the field at a path of keys: ("train", "batch_size") is "--batch-size" for flags."""


def dotted(path: Sequence[str]) -> str:
    """The last key of a path."""
    return path[-1]


def build(cls: type[ModelT], values: Mapping[str, object], name_of: NameOf = dotted) -> ModelT:
    """Make a configuration model from field names and values.

    Text is converted to the field's type; missing fields have their defaults. ``name_of`` gives the caller's name for a
    field.

    Raises
    ------
    ConfigError
        With every field that is unknown or out of bounds, its value and the bound.
    """
    try:
        return cls.model_validate(dict(values))
    except ValidationError as error:
        raise explain(error, cls, name_of) from error
    except (RecursionError, OverflowError) as error:
        raise ConfigError(f"The values cannot be read: {error}.", "Give plain numbers and words.") from error


def expect(cls: type[ModelT], value: object) -> ModelT:
    """The value, if it is a configuration of this kind.

    Raises
    ------
    ConfigError
        If it is something else, such as a dict.
    """
    if isinstance(value, cls):
        return value
    article = "An" if cls.__name__[0] in "AEIOU" else "A"
    raise ConfigError(
        f"{article} {cls.__name__} is needed; this is of the type {type(value).__name__}.",
        f"Give {cls.__name__}(...), with the settings as keywords.",
    )


def explain(error: ValidationError, cls: type[BaseModel], name_of: NameOf = dotted) -> ConfigError:
    """Turn pydantic's report on ``cls`` into a `ConfigError` of one paragraph."""
    errors = error.errors(include_url=False)
    problems = dict.fromkeys(_problem(one, cls, name_of) for one in errors[:_MAX_PROBLEMS])
    return ConfigError(join_problems(list(problems), len(errors) - _MAX_PROBLEMS), "Change it and try again.")


def _problem(error: Any, cls: type[BaseModel], name_of: NameOf) -> str:
    path = _path_of(error["loc"], cls)
    message = error["msg"].removeprefix("Value error, ").rstrip(".")
    name = name_of(path) if path else ""
    if len(path) < len(error["loc"]) and error["type"] in ("extra_forbidden", "missing"):  # in an item of a list
        return (
            f"{name} has an item {'without' if error['type'] == 'missing' else 'with the unknown'} {error['loc'][-1]}."
        )
    match error["type"]:
        case "extra_forbidden" | "invalid_key":
            return f"{shorten(name)} is not known{_where_it_belongs(path, cls)}.".replace("?.", "?")
        case "model_type":
            return f"{name} is {shorten(error['input'])}; it must have fields below it."
        case "missing":
            return f"{name} is missing."
        case "value_error":
            return f"{message}."
    message = message[0].lower() + message[1:]
    return f"{name} is {shorten(error['input'])}: {message}." if path else f"{message}."


def _path_of(location: Sequence[object], cls: type[BaseModel]) -> list[str]:
    """The keys that lead to a field, without what pydantic appends, such as the member of a union."""
    path = []
    below: type[BaseModel] | None = cls
    for key in location:
        if below is None:
            break
        path.append(str(key))
        below = _model_below(below, str(key))
    return path


def _where_it_belongs(path: Sequence[str], cls: type[BaseModel]) -> str:
    """A hint for an unknown key: the section that has it, or similar names."""
    for key in path[:-1]:
        cls = _model_below(cls, key) or cls
    key = path[-1]
    for section in cls.model_fields:
        inner = _model_below(cls, section)
        if inner is not None and key in inner.model_fields:
            return f"; it belongs in the section '{section}'"
    return suggestion(key, cls.model_fields)


def _model_below(cls: type[BaseModel], key: str) -> type[BaseModel] | None:
    """The model of a field, if it has one."""
    field = cls.model_fields.get(key)
    kind: Any = None if field is None else field.annotation
    kind = kind.__bound__ if isinstance(kind, TypeVar) else kind
    kinds = typing.get_args(kind) if typing.get_origin(kind) in (typing.Union, types.UnionType) else (kind,)
    return next((one for one in kinds if isinstance(one, type) and issubclass(one, BaseModel)), None)


def join_problems(problems: Sequence[str], more: int = 0) -> str:
    """Join problems into one paragraph, and say how many were left out."""
    lengths = accumulate(len(problem) for problem in problems)
    fitting = max(sum(length <= _MAX_TEXT for length in lengths), 1)
    more = max(more, 0) + len(problems) - fitting
    return " ".join(problems[:fitting]) + (f" And {more} more." if more > 0 else "")


def suggestion(name: str, valid: Iterable[str], likeness: float = 0.6) -> str:
    """``"; did you mean ...?"`` for a misspelt name, else ``"; valid are ..."``."""
    valid = list(valid)
    close = difflib.get_close_matches(name[:_MAX_NAME], valid, n=2, cutoff=likeness)
    if close := close or [one for one in valid if _initials(one) == name.lstrip("-")][:2]:
        return f"; did you mean {' or '.join(close)}?"  # lr is learning_rate
    return f"; valid are {', '.join(valid)}"


def _initials(name: str) -> str:
    return "".join(word[:1] for word in name.lstrip("-").replace("-", "_").split("_"))


def shorten(value: object) -> str:
    """Show a value in at most 60 characters."""
    text = value if isinstance(value, str) and value else reprlib.repr(value)
    return text if len(text) <= _MAX_NAME else text[: _MAX_NAME - 3] + "..."
