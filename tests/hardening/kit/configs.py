"""Mutated configuration files."""

from __future__ import annotations

import random
from functools import lru_cache
from pathlib import Path

import yaml
from hardening.kit.mutation import Mutation, mangle, mutate_json, pick, strange_path

from ptychopinn.config.build import build
from ptychopinn.config.files import read_config_file
from ptychopinn.config.model import SUPPORTED_N
from ptychopinn.config.run import AllSettings

SUFFIX = ".yaml"
_NASTY_YAML = (
    *("!!bool perhaps", "!!timestamp soon", "!!int many", "!!float much", "!!binary '='", "!!null x", "!!set {a, b}"),
    *("!!python/object/apply:os.system ['touch PWNED']", "!!python/name:os.system", "!!omap [a]", "!!pairs [a]"),
    *("&a [*a]", "*nothing", "{? [1] : 2}", "{? {a: 1} : 2}", "<<: 5", "'", "|\n x", "@", "`", "%", "\t", "0x", "1_0"),
    *("1:2:3", "2001-99-99", "0o9", "1e400", ".inf", "-.inf", ".nan", "~", "=", "9" * 5000, "[" * 3000, "{" * 3000),
    *("- " * 3000, "!" + "x" * 500, "!<tag:yaml.org,2002:map> [1]", "!!str [1]", "? ", "\ufeff", "\x07", "on"),
)


@lru_cache(maxsize=2)
def _text(suffix: str) -> str:
    import json

    content = AllSettings(backend="torch", study={"legs": ["epie"]}).model_dump(mode="json")
    content["model"] = {"N": SUPPORTED_N[0]}
    return json.dumps(content) if suffix == ".json" else yaml.safe_dump(content)


def damage(rng: random.Random, path: Path) -> str:
    """Bytes of the file."""
    how, content = mangle(rng, _text(".yaml").encode())
    path.write_bytes(content)
    return how


def change_value(rng: random.Random, path: Path) -> str:
    """One value of YAML."""
    lines = _text(".yaml").splitlines()
    k = rng.randrange(len(lines))
    key = lines[k].partition(":")[0]
    value = pick(rng, _NASTY_YAML)
    lines[k] = f"{key}: {value}" if rng.random() < 0.8 else value
    path.write_text("\n".join(lines), "utf-8")
    return f"{key} {value[:30]}"


def change_json(rng: random.Random, path: Path) -> str:
    """The same settings as JSON, which is YAML, too."""
    text = mutate_json(rng, _text(".json"))
    path.write_text(text, "utf-8", errors="surrogatepass")
    return text[:40]


def grow(rng: random.Random, path: Path) -> str:
    """Aliases that multiply, and as many keys as the size allows."""
    how = pick(rng, ("aliases", "aliases section", "merges", "keys", "twice", "long", "anchors", "too large"))
    levels = "\n".join(f"l{k}: &l{k} [{', '.join([f'*l{k - 1}'] * 9)}]" for k in range(1, 12))
    if how == "aliases":
        text = f"l0: &l0 [x]\n{levels}\ntrain: *l11"
    elif how == "aliases section":
        text = f"l0: &l0 [x]\n{levels}\ntrain: {{nepochs: *l11}}"
    elif how == "merges":
        merges = "\n".join(f"m{k}: &m{k} {{<<: [{', '.join([f'*m{k - 1}'] * 9)}]}}" for k in range(1, 9))
        text = f"m0: &m0 {{a: 1}}\n{merges}\ntrain: *m8"
    elif how == "keys":
        text = "train:\n" + "\n".join(f" k{k}: 1" for k in range(12_000))
    elif how == "twice":
        text = "{" + ", ".join(f'"k{k}": 1' for k in range(12_000)) + ', "k11999": 2}'
    elif how == "long":
        text = "train: '" + "x" * 900_000 + "'"
    elif how == "anchors":
        text = "\n".join(f"k{k}: &a{k} 1" for k in range(8000))
    else:
        text = "#" * (2**20 + 1)
    path.write_text(text)
    return how


MUTATIONS: tuple[Mutation, ...] = (damage, damage, change_value, change_value, change_json, grow, strange_path)


def open_file(path: Path, target: Path) -> None:
    """As the command line reads it."""
    build(AllSettings, read_config_file(path))
