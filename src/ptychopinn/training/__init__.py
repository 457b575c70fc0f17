"""What the trainings of all backends share: light, plan, bookkeeping, loggers, and a reconstructor to fill in.

A backend subclasses `NetworkReconstructor` and supplies a network, a loss and an optimizer step in its framework. It
need not: anything that follows `ptychopinn.reconstructor.Reconstructor` is a backend.
"""

from ptychopinn.training.base import Fit, NetworkReconstructor
from ptychopinn.training.book import EpochBook, LossReading, read_step
from ptychopinn.training.cards import no_cuda, no_such_card
from ptychopinn.training.epochs import EpochSource, patterns_in
from ptychopinn.training.light import Light, light_arrays, light_from_arrays
from ptychopinn.training.loggers import RunLogger
from ptychopinn.training.looks import Look, features_width, looks
from ptychopinn.training.parts import Parts
from ptychopinn.training.plan import ScanBatches, TrainingPlan
from ptychopinn.training.prefetch import prefetch
from ptychopinn.training.published import BORDER_CHANNELS, level_filters
from ptychopinn.training.tensors import checkpoint_tensors, network_tensors

__all__ = [
    "BORDER_CHANNELS",
    "EpochBook",
    "EpochSource",
    "Fit",
    "Light",
    "Look",
    "LossReading",
    "NetworkReconstructor",
    "Parts",
    "RunLogger",
    "ScanBatches",
    "TrainingPlan",
    "checkpoint_tensors",
    "features_width",
    "level_filters",
    "light_arrays",
    "light_from_arrays",
    "looks",
    "network_tensors",
    "no_cuda",
    "no_such_card",
    "patterns_in",
    "prefetch",
    "read_step",
]
