"""Presets: named sets of values for several settings, chosen by what is known of the scan.

The values come from the tables of docs/benchmarks.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pydantic import BaseModel

from ptychopinn.config.infer import InferConfig
from ptychopinn.config.settings import is_off, marks_of
from ptychopinn.config.train import TrainConfig


class Preset(StrEnum):
    """What a run is for."""

    QUICK_LOOK = "quick-look"
    BEST_PICTURE = "best-picture"
    SPARSE = "sparse"
    DIM = "dim"
    MANY_SCANS = "many-scans"


@dataclass(frozen=True)
class PresetValues:
    """The values of a preset."""

    summary: str  # when to use it
    # Fields of `TrainConfig` and `InferConfig` and their values.
    train: Mapping[str, object]
    infer: Mapping[str, object]

    @property
    def sections(self) -> dict[str, dict[str, Any]]:
        """Section to field to value, as in a configuration file."""
        return {"train": dict(self.train), "infer": dict(self.infer)}


PRESETS: Mapping[Preset, PresetValues] = {
    Preset.QUICK_LOOK: PresetValues(
        "A first picture of a scan with overlap, soon: after a training of seconds two passes do most of the work.",
        train={"max_time": 20.0},
        infer={"refine": 2},
    ),
    Preset.BEST_PICTURE: PresetValues(
        "The best picture of a scan with overlap: ten passes, which correct the probe too.",
        train={},
        infer={"refine": 10, "refine_probe": True},
    ),
    Preset.SPARSE: PresetValues(
        "Patterns that overlap little: simulated objects teach what neighbours do not; allow some minutes of training.",
        train={"simulate_objects": "mixed"},
        infer={"refine": 10},
    ),
    Preset.DIM: PresetValues(
        "Few photons, some thousands a pattern or less: simulated objects against noise, passes for Poisson counts.",
        train={"simulate_objects": "mixed"},
        infer={"refine": 3, "refine_likelihood": "poisson"},
    ),
    Preset.MANY_SCANS: PresetValues(
        "One model for many scans, whatever their probe: it learns from simulated objects and probes alone.",
        train={"simulate_objects": "only", "simulate_probes": "family", "probe_refinement": 0},
        infer={"probe_source": "scan", "refine": 2},
    ),
}

_MODELS: Mapping[str, type[BaseModel]] = {"train": TrainConfig, "infer": InferConfig}


def fill_in(preset: Preset, sections: Mapping[str, Any]) -> dict[str, Any]:
    """The sections that a preset acts on: its values, and before them what is given.

    A value of the preset that has no effect without a setting that is given as off is left out: ``refine`` 0 leaves out
    ``refine_probe``. A section that is neither a mapping nor a model is returned as it is, to be refused later.
    """
    filled: dict[str, Any] = {}
    for section, values in PRESETS[preset].sections.items():
        given = sections.get(section, {})
        if isinstance(given, BaseModel):
            given = given.model_dump(exclude_unset=True)
        filled[section] = given if not isinstance(given, Mapping) else add_useful(section, values, given)
    return filled


def add_useful(section: str, values: Mapping[str, object], given: Mapping[str, object]) -> dict[str, object]:
    """Given fields of a section and, where they are missing, other values of it.

    A value that has no effect because a field is given as off is left out.
    """
    fields = _MODELS[section].model_fields
    useful = {}
    for name, value in values.items():
        needed = marks_of(fields[name]).get("needs")
        if needed is None or needed not in given or not is_off(given[needed]):
            useful[name] = value
    return {**useful, **given}
