"""Makes docs/settings.md from the configuration models: python docs/settings_page.py > docs/settings.md."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel

from ptychopinn.cli._flags import describe_preset, flag_of
from ptychopinn.config import ExecutionOptions, InferConfig, ModelConfig, SimulationConfig, TrainConfig
from ptychopinn.config.automatic import AutomaticConfig
from ptychopinn.config.batch import BatchConfig
from ptychopinn.config.comparison import ComparisonConfig
from ptychopinn.config.conversion import ConversionOptions
from ptychopinn.config.presets import PRESETS
from ptychopinn.config.reading import ReadOptions
from ptychopinn.config.settings import Setting, settings_of
from ptychopinn.config.solver import SolverOptions
from ptychopinn.config.study import StudyConfig
from ptychopinn.config.tiles import TilesConfig

SECTIONS: dict[str, type[BaseModel]] = {
    "train": TrainConfig,
    "model": ModelConfig,
    "infer": InferConfig,
    "execution": ExecutionOptions,
    "reading": ReadOptions,
    "conversion": ConversionOptions,
    "automatic": AutomaticConfig,
    "simulation": SimulationConfig,
    "solver": SolverOptions,
    "comparison": ComparisonConfig,
    "study": StudyConfig,
    "batch": BatchConfig,
    "tiles": TilesConfig,
}
PLUGINS = Path(__file__).parents[1] / "plugins"
# Of plugins that need not be installed: their options import no framework.
OWN_OPTIONS = {
    ("execution", "torch"): ("torch_backend/src/ptychopinn_torch/options.py", "TorchOptions", ExecutionOptions),
    ("execution", "tf"): ("tf_backend/src/ptychopinn_tf/options.py", "TfOptions", ExecutionOptions),
    ("solver", "ptychi"): ("ptychi_backend/src/ptychopinn_ptychi/options.py", "PtychiOptions", SolverOptions),
}
INTRODUCTION = """# Settings

Made by `docs/settings_page.py` from the configuration models, like the flags of the command line and the pane of
Ptychodus.

A setting is a key of its section in a configuration file (`train: {max_time: 60}`), a flag (`--max-time 60`), a field
in Python (`run_settings(train={"max_time": 60})`) and a row of the pane. Flags go before the file, the file before the
preset, and the preset before the default. The settings in bold are those that `--help` shows and that are at the top of
the pane; `--help-all` and **Advanced** show the others. [training.md](training.md) says which to change for which scan.

## Presets

`--preset NAME`, `preset: NAME` in a file, `run_settings(preset="NAME")`, or the first row of the pane. The values come
from [benchmarks.md](benchmarks.md). A setting that is given beside a preset keeps its own value.

| preset | use it for | values |
|---|---|---|
"""
TABLE = "\n\n| key | label | unit | default | meaning |\n|---|---|---|---|---|"


def page() -> str:
    """The whole page."""
    return INTRODUCTION + "".join(f"{line}\n" for line in (*_presets(), *_sections()))


def _presets() -> Iterator[str]:
    for name, preset in PRESETS.items():
        yield f"| `{name}` | {preset.summary} | `{describe_preset(name).removeprefix(preset.summary).strip()}` |"


def _sections() -> Iterator[str]:
    for section, cls in SECTIONS.items():
        yield from _tables(f"Section `{section}`", section, settings_of(section, cls))
        for (place, name), (path, options, base) in OWN_OPTIONS.items():
            if place == section:
                shared = {*base.model_fields, *ExecutionOptions.model_fields}
                own = settings_of(section, _load(PLUGINS / path, options), without=shared)
                yield from _tables(f"Section `{section}`, of `{name}` alone", section, own)


def _tables(title: str, section: str, settings: list[Setting]) -> Iterator[str]:
    yield f"\n## {title}"
    group = ""
    for setting in settings:
        if setting.group != group:
            group = setting.group
            yield f"\n### {group[:1].upper()}{group[1:]}{TABLE}"
        yield _row(setting, section)


def _row(setting: Setting, section: str) -> str:
    key = f"`{setting.name}`" if section != "solver" else f"`{setting.name}` (`{flag_of(setting.name, section)}`)"
    choices = f" One of {', '.join(f'`{choice}`' for choice in setting.choices)}." if setting.choices else ""
    bounds = "; ".join(setting.facts[1:])
    texts = (
        f"**{key}**" if setting.is_basic else key,
        setting.label,
        setting.unit,
        setting.default_text,
        f"{setting.description}{choices}{f' {bounds[:1].upper()}{bounds[1:]}.' if bounds else ''}",
    )
    return f"| {' | '.join(text.replace('|', '/') for text in texts)} |"


def _load(path: Path, name: str) -> type[BaseModel]:
    spec = importlib.util.spec_from_file_location(f"_{path.parent.name}_options", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where pydantic looks for the names in its annotations
    spec.loader.exec_module(module)
    options: type[BaseModel] = getattr(module, name)
    return options


if __name__ == "__main__":
    print(page(), end="")
