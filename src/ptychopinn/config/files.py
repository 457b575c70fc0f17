"""Read and write configuration files (YAML or JSON) in the form of `ptychopinn.config.run.AllSettings`."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ptychopinn.atomic import write_bytes
from ptychopinn.config.run import RunSettings
from ptychopinn.errors import ConfigError
from ptychopinn.path_checks import why_unreadable
from ptychopinn.typing import StrPath

MAX_BYTES = 2**18


def read_config_file(path: StrPath) -> dict[str, Any]:
    """Parse a YAML or JSON file. `ptychopinn.config.run.AllSettings` checks the content.

    YAML is read by its 1.2 rules: ``on``, ``off``, ``yes``, ``no`` and ``1:30`` are words, ``1e-3`` and ``010`` are
    numbers, the latter ten.

    Raises
    ------
    ConfigError
        If it is not there, too large, not YAML or JSON, has a key twice, aliases or tags, or is not a mapping.
    """
    path = Path(path)
    if (why := why_unreadable(path)) is not None:
        raise ConfigError(f"The configuration {path} {why}.", "Give a YAML or JSON file.")
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(f"{path} has more than {MAX_BYTES:,} bytes.", "Give a configuration file.")
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The configuration {path} cannot be read: {error}.", "Give a YAML or JSON file.") from error
    import yaml

    try:
        # JSON files are parsed as JSON, so that errors speak of JSON; all others as YAML.
        if path.suffix.lower() == ".json":
            parsed = json.loads(text, object_pairs_hook=unique_keys)
        else:
            parsed = yaml.load(text, _yaml_loader())
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())[:500]
        raise ConfigError(f"The configuration {path} cannot be read: {reason}.", "Correct that place.") from error
    if parsed is None:
        return {}
    if not isinstance(parsed, dict):
        raise ConfigError(
            f"The configuration {path} is a {type(parsed).__name__}, not a mapping.",
            "Write sections such as 'train:' with fields below.",
        )
    return parsed


def write_config_file(path: StrPath, settings: RunSettings[Any]) -> None:
    """Write all settings of a run as `read_config_file` reads them."""
    import yaml

    values = settings.model_dump(mode="json")
    write_bytes(path, yaml.safe_dump(values, sort_keys=False, allow_unicode=True, encoding="utf-8"))


def unique_keys(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    """The mapping of some pairs, for ``json.loads``; raises ValueError if a key is given twice."""
    if len(found := dict(pairs)) != len(pairs):
        raise ValueError(f"the key {_first_repeated([key for key, _ in pairs])!r} is given twice")
    return found


def _first_repeated(keys: Sequence[Any]) -> str | None:
    counts = Counter(str(key)[:80] for key in keys)
    return next((key for key, count in counts.items() if count > 1), None) if len(counts) < len(keys) else None


def _yaml_loader() -> Any:
    """A safe loader of YAML 1.2 words and numbers that refuses a key given twice, aliases and tags.

    Aliases can make a small file a huge value, and PyYAML does not always check tags.
    """
    import yaml

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        yaml_implicit_resolvers = {  # noqa: RUF012 - copied, so that yaml's own stays as it is
            first: [(tag, regexp) for tag, regexp in resolvers if tag not in _REPLACED]
            for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }

        def compose_node(self, parent: Any, index: Any) -> Any:
            event = self.peek_event()
            if isinstance(event, yaml.AliasEvent) or getattr(event, "tag", None) is not None:
                raise yaml.composer.ComposerError(None, None, "aliases and tags are not read", event.start_mark)
            return super().compose_node(parent, index)

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            keys = [self.construct_object(key, deep=True) for key, _ in node.value]
            if (twice := _first_repeated(keys)) is not None:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {twice!r} is given twice", node.start_mark
                )
            return super().construct_mapping(node, deep)  # type: ignore[no-any-return]

    integer = "tag:yaml.org,2002:int"
    Loader.add_implicit_resolver(integer, re.compile(r"[-+]?[0-9]+$"), list("-+0123456789"))
    Loader.add_constructor(integer, lambda loader, node: int(loader.construct_scalar(node)))
    Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"(true|false)$", re.I), list("tTfF"))
    Loader.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"([-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)(e[-+]?[0-9]+)?|[-+]?\.inf|\.nan)$", re.I),
        list("-+0123456789."),
    )
    return Loader


_REPLACED = frozenset(f"tag:yaml.org,2002:{kind}" for kind in ("bool", "int", "float", "timestamp"))
