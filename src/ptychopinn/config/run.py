"""All settings of a run as one value. A configuration file has the same form.

A run directory's ``config.yaml``, which can be given to ``--config`` again::

    backend: torch
    model: {n_filters_scale: 0.5}
    train: {nepochs: 20, learning_rate: 5e-4}
    infer: {synchronise: on}
    execution: {accelerator: cpu}
    reading: {measurement: counts}
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, Self, TypeVar, cast

from pydantic import BaseModel, Field, SerializeAsAny, model_validator

from ptychopinn.config._base import Config
from ptychopinn.config.automatic import AutomaticConfig
from ptychopinn.config.batch import BatchConfig
from ptychopinn.config.build import build
from ptychopinn.config.comparison import ComparisonConfig
from ptychopinn.config.conversion import ConversionOptions
from ptychopinn.config.execution import ExecutionOptions
from ptychopinn.config.infer import InferConfig
from ptychopinn.config.model import ModelConfig
from ptychopinn.config.presets import Preset, fill_in
from ptychopinn.config.reading import ReadOptions
from ptychopinn.config.settings import marks
from ptychopinn.config.simulation import SimulationConfig
from ptychopinn.config.solver import SolverOptions
from ptychopinn.config.study import StudyConfig
from ptychopinn.config.tiles import TilesConfig
from ptychopinn.config.train import TrainConfig

OptionsT = TypeVar("OptionsT", bound=ExecutionOptions)
SolverT = TypeVar("SolverT", bound=SolverOptions)
OptionsModelT = TypeVar("OptionsModelT", bound=BaseModel)
_DEFAULTS: Any = dict  # an empty section; validation turns it into a model


class RunSettings(Config, Generic[OptionsT]):
    """The settings of a training or an inference.

    ``model_fields_set`` tells given fields from defaults. An existing network brings its own `model`, and N comes from
    the scan.
    """

    backend: str | None = Field(
        None, description="The deep-learning framework (default: that of the model, else the first installed)."
    )
    preset: Preset | None = Field(
        None,
        title="Preset",
        description="A named set of values for several settings. A setting that is given itself keeps its own value.",
        json_schema_extra=marks(basic=True),
    )
    model: ModelConfig = Field(ModelConfig(), description="The network.")
    train: TrainConfig = Field(TrainConfig(), description="Training.")
    infer: InferConfig = Field(InferConfig(), description="Reconstruction with a network.")
    execution: SerializeAsAny[OptionsT] = Field(default_factory=_DEFAULTS, description="Where and how to compute.")
    reading: ReadOptions = Field(ReadOptions(), description="What scan files do not say.")

    @classmethod
    def with_options(cls, *options: type[BaseModel]) -> type[Self]:
        """This class where `execution` holds a backend's own options, and `solver`, where there is one, a solver's."""
        return cast("type[Self]", cls.__class_getitem__(options))

    @model_validator(mode="before")
    @classmethod
    def _read_sections(cls, values: object) -> object:
        """Fill in the preset's values. A section without fields is empty; version 0.1 had `measurement` at the top."""
        if not isinstance(values, Mapping):
            return values
        sections = {name: value for name, value in values.items() if value is not None}
        if "measurement" in sections:
            reading = sections.get("reading", {})
            if isinstance(reading, Mapping):
                sections["reading"] = {"measurement": sections.pop("measurement"), **reading}
        if sections.get("preset") in list(Preset):
            sections |= fill_in(Preset(sections["preset"]), sections)
        return sections

    def given(self) -> dict[str, Any]:
        """The given fields, section by section, without defaults."""
        return self.model_dump(exclude_unset=True)


class AllSettings(RunSettings[OptionsT], Generic[OptionsT, SolverT]):
    """Everything that a configuration file may have. Each command uses the sections that concern it."""

    conversion: ConversionOptions = Field(ConversionOptions(), description="What convert does to a scan.")
    automatic: AutomaticConfig = Field(AutomaticConfig(), description="Reconstructions that decide by themselves.")
    simulation: SimulationConfig = Field(SimulationConfig(), description="Simulated scans.")
    solver: SerializeAsAny[SolverT] = Field(default_factory=_DEFAULTS, description="Iterative solvers.")
    comparison: ComparisonConfig = Field(ComparisonConfig(), description="Comparisons.")
    study: StudyConfig | None = Field(None, description="Grids of comparisons.")
    batch: BatchConfig = Field(BatchConfig(), description="One workflow over many scans.")
    tiles: TilesConfig = Field(TilesConfig(), description="One scan over many workers.")

    def run_settings(self) -> RunSettings[OptionsT]:
        """The settings of a run."""
        return RunSettings.with_options(type(self.execution)).model_validate(
            {name: getattr(self, name) for name in RunSettings.model_fields if name in self.model_fields_set}
        )


def options_for(cls: type[OptionsModelT], given: BaseModel | Mapping[str, object] | None) -> OptionsModelT:
    """Validate the options of a backend or solver, from given fields or from the given fields of another's options.

    Raises ConfigError if it does not know one of them.
    """
    if isinstance(given, cls):
        return given
    return build(cls, given.model_dump(exclude_unset=True) if isinstance(given, BaseModel) else given or {})
