"""Training code that all backends share: illumination, plan, state, loggers, and a base class of reconstructors.

A backend usually subclasses `NetworkReconstructor` and supplies the network and the optimizer step in its framework.
Anything else that implements `ptychopinn.reconstructor.Reconstructor` is a backend too.
"""

from ptychopinn.training.base import NetworkReconstructor
from ptychopinn.training.cnn_layout import BORDER_CHANNELS, level_filters
from ptychopinn.training.device_errors import no_cuda, no_such_card
from ptychopinn.training.epochs import EpochSource, patterns_in
from ptychopinn.training.illumination import IlluminationArrays, illumination_from_tensors, illumination_tensors
from ptychopinn.training.loggers import RunLogger
from ptychopinn.training.loop import Fit
from ptychopinn.training.micro_batches import MicroBatches
from ptychopinn.training.plan import ScanBatches, TrainingPlan
from ptychopinn.training.prefetch import prefetch
from ptychopinn.training.sampling_schedule import DetectorSampling, features_width, network_width, sampling_schedule
from ptychopinn.training.state import LossReading, TrainingState, read_step
from ptychopinn.training.tensors import checkpoint_tensors, network_tensors

__all__ = [
    "BORDER_CHANNELS",
    "DetectorSampling",
    "EpochSource",
    "Fit",
    "IlluminationArrays",
    "LossReading",
    "MicroBatches",
    "NetworkReconstructor",
    "RunLogger",
    "ScanBatches",
    "TrainingPlan",
    "TrainingState",
    "checkpoint_tensors",
    "features_width",
    "illumination_from_tensors",
    "illumination_tensors",
    "level_filters",
    "network_tensors",
    "network_width",
    "no_cuda",
    "no_such_card",
    "patterns_in",
    "prefetch",
    "read_step",
    "sampling_schedule",
]
