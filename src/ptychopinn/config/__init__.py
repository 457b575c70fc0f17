"""Every setting there is: frozen pydantic models, each default and bound written once."""

from ptychopinn.config._base import Config
from ptychopinn.config.execution import ExecutionOptions
from ptychopinn.config.infer import InferConfig
from ptychopinn.config.model import ModelConfig
from ptychopinn.config.reading import ReadOptions
from ptychopinn.config.run import RunSettings
from ptychopinn.config.simulation import SimulationConfig
from ptychopinn.config.train import ResolvedTrainConfig, TrainConfig

__all__ = [
    "Config",
    "ExecutionOptions",
    "InferConfig",
    "ModelConfig",
    "ReadOptions",
    "ResolvedTrainConfig",
    "RunSettings",
    "SimulationConfig",
    "TrainConfig",
]
