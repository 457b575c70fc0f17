"""The plan of a training: scans, batches, weights of the loss terms, and duration."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from ptychopinn.config.model import ModelConfig, ModelType
from ptychopinn.config.train import (
    DetectorOffset,
    LossWeights,
    ResolvedTrainConfig,
    SimulateObjects,
    SimulateProbes,
    TrainConfig,
)
from ptychopinn.data.batches import GroupBatches, check_pattern_count, training_subset
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.ground_truth import TruthPatches
from ptychopinn.data.grouping import check_groups
from ptychopinn.data.scaling import Scaling, fit_scaling
from ptychopinn.data.splits import split_by_space
from ptychopinn.errors import ConfigError
from ptychopinn.schedule import TrainingClock
from ptychopinn.simulate.object_stream import ObjectStream, ObjectStreamOptions
from ptychopinn.simulate.random_probes import draw_probe, vary_probe
from ptychopinn.training.epochs import EpochSource
from ptychopinn.training.ranks import Ranks
from ptychopinn.typing import ComplexArray, FloatArray

# A model for any scan works at any dose: photons a pixel, 1e2 to 1e7 a pattern at N = 64.
_FAMILY_DOSES = (0.025, 2500.0)
# Large batches need new objects sooner, small ones would have the host make objects most of the time.
_PATTERNS_AN_OBJECT, _MAX_BATCHES_AN_OBJECT = 4096, 32
_MAX_SHARE = 0.5  # that validation_fraction may be
CLOCK_FIGURES = ("epoch", "seconds", "learning_rate")


@dataclass(frozen=True, eq=False)
class ScanBatches:
    """One scan, prepared for training or validation."""

    scaling: Scaling
    good: FloatArray  # (N, N) float32, DC at [0, 0]: 1 where the detector measured
    groups: GroupBatches
    batches: EpochSource


@dataclass(frozen=True, eq=False)
class TrainingPlan:
    """Everything that a training needs."""

    model: ModelConfig
    config: ResolvedTrainConfig
    weights: LossWeights
    # The scans; validation may be None.
    training: ScanBatches
    validation: ScanBatches | None
    clock: TrainingClock  # progress in time, steps and epochs, and the learning rate
    figures: tuple[str, ...]  # names of the figures of an epoch, without those of the clock
    follow_offset: bool  # whether the detector's offset follows the mean phase gradient
    ranks: Ranks = field(default_factory=Ranks)  # the processes that train together

    @property
    def total_batches(self) -> int:
        """Number of batches of the training; 0 if only max_time ends it."""
        limit = self.config.epoch_limit
        return 0 if limit is None else limit * len(self.training.batches)

    def makes_step(self, number: int) -> bool:
        """Whether the optimizer makes a step after batch ``number`` of an epoch (gradients are accumulated)."""
        return (number + 1) % self.config.accumulate_grad_batches == 0 or number + 1 == len(self.training.batches)


def good_pixels(data: ScanDataset) -> FloatArray:
    """(N, N) float32, DC at [0, 0]: 1 where the detector measured, else 0."""
    return np.fft.ifftshift(~data.bad_pixels).astype(np.float32)


def check_settings(model: ModelConfig, config: TrainConfig, *, validates: bool) -> LossWeights:
    """Check the settings of a training and return the weights of the loss terms.

    Raises ConfigError if settings contradict each other or have no effect.
    """
    try:
        weights = config.loss_weights(model)
        config.check_all_settings_used(model, validates=validates)
        config.offset_for(model)
        if model.patterns_per_patch > 1 and config.simulate_objects is not SimulateObjects.OFF:
            raise ValueError(
                f"simulate_objects makes single patterns, but this {model.architecture} needs groups of "
                f"{model.patterns_per_patch}; use gridsize = 1"
            )
    except ValueError as error:
        raise ConfigError(f"The training cannot be set up: {error}.", "Change or leave out one of them.") from error
    return weights


def training_scans(
    data: ScanDataset, validation: ScanDataset | None, config: TrainConfig, model: ModelConfig
) -> tuple[ScanDataset, ScanDataset | None]:
    """The patterns for training and for validation.

    Without ``validation``, ``validation_fraction`` holds out a region of ``data``.

    Raises
    ------
    DataError
        If there are fewer than two patterns to train on.
    ConfigError
        If a scan cannot be split, has too few patterns for one group, or both a fraction and a scan are given for
        validation.
    """
    whole, size = data, model.patterns_per_group
    if validation is not None and config.validation_fraction > 0:
        raise ConfigError(
            f"validation_fraction is {config.validation_fraction:g}, and a scan is given for validation.",
            "Leave one of them out.",
        )
    if validation is None and config.validation_fraction > 0:
        inner, outer = split_by_space(data, config.validation_fraction)
        data, validation = data.select(inner), data.select(outer)
        _refuse_small_share(validation, whole, config.validation_fraction, size)
    elif validation is not None and _largest(validation) < size:
        raise ConfigError(
            f"The validation scan '{validation.name}' has {_largest(validation)} patterns; validation needs {size}, "
            "those of a group.",
            f"Give a larger one, or set group_size to {_largest(validation)} or less.",
        )
    data = training_subset(data, config)
    check_pattern_count(data)
    check_groups(data, size, config.neighbor_count)
    return data, validation


def _largest(data: ScanDataset) -> int:
    """Patterns in the largest of the scans of a dataset."""
    return int(np.unique(data.scan_index, return_counts=True)[1].max(initial=0))


def _refuse_small_share(held: ScanDataset, whole: ScanDataset, fraction: float, group_size: int) -> None:
    """Refuse a validation region with too few patterns for one group."""
    there, of = _largest(held), _largest(whole)
    if there >= group_size:
        return
    enough = math.ceil(100 * group_size / of) / 100
    more = f"Set validation_fraction to {enough:g} or more, or" if enough <= _MAX_SHARE else "Set"
    raise ConfigError(
        f"validation_fraction {fraction:g} holds back {there} of {of} patterns; validation needs {group_size}, "
        "those of a group.",
        f"{more} group_size to {there} or less, or give a scan for validation.",
    )


def make_plan(
    model: ModelConfig,
    config: ResolvedTrainConfig,
    data: ScanDataset,
    validation: ScanDataset | None,
    unit_probe: ComplexArray,
) -> TrainingPlan:
    """Plan a training.

    Parameters
    ----------
    data, validation:
        From `training_scans`.
    unit_probe:
        (modes, N, N) complex64, the model's probe in root mean counts, with the detector's offset.

    Raises
    ------
    ConfigError, DataError
        If scans and configuration contradict each other.
    """
    weights = check_settings(model, config, validates=validation is not None)
    supervised = model.model_type is ModelType.SUPERVISED
    simulated_only = config.simulate_objects is SimulateObjects.ONLY

    def batches_of(scan: ScanDataset, *, train: bool) -> ScanBatches:
        scaling = fit_scaling(scan)
        probe = unit_probe * np.float32(math.sqrt(scaling.mean_counts))
        measured = not (train and simulated_only)  # else the groups only determine the length of an epoch
        truth = None
        if measured and (supervised or weights.realspace_mae):
            truth = TruthPatches(scan, probe, scaling.mean_counts, model.patch_size)
        # n_groups is the length of a training epoch; validation uses its whole scan once.
        drawn = config if train else config.model_copy(update={"n_groups": None})
        groups = GroupBatches(scan, model, drawn, truth)
        stream, simulated = None, 0
        if train and config.simulate_objects is not SimulateObjects.OFF:
            simulated = config.batch_size * groups.group_size
            stream = ObjectStream(
                probe,
                scaling.mean_counts,
                scan.bad_pixels,
                config.seed,
                model.patch_size,
                ObjectStreamOptions(
                    batches_an_object=_batches_an_object(simulated),
                    dose_range=_dose_range(config, scaling.mean_counts / scan.N**2),
                    draw_probe=_probe_draw(config, probe),
                ),
            )
        source = EpochSource(
            groups if measured else None,
            stream,
            groups.batches_per_epoch,
            simulated,
        )
        return ScanBatches(scaling, good_pixels(scan), groups, source)

    training = batches_of(data, train=True)
    figures = ["loss", *([] if simulated_only else term_names(weights))]
    figures += ["simulated"] * (config.simulate_objects is not SimulateObjects.OFF)
    figures += ["validation_loss"] * (validation is not None)
    steps = -(-len(training.batches) // config.accumulate_grad_batches)
    follows = config.offset_for(model) is DetectorOffset.TRAIN and bool(training.scaling.detector_offset_px.any())
    return TrainingPlan(
        model=model,
        config=config,
        weights=weights,
        training=training,
        validation=None if validation is None else batches_of(validation, train=False),
        clock=TrainingClock(config, steps),
        figures=tuple(figures),
        follow_offset=follows and not supervised and not simulated_only,
    )


def _batches_an_object(patterns: int) -> int:
    """Batches of so many simulated patterns after which an object is replaced."""
    return min(max(_PATTERNS_AN_OBJECT // patterns, 1), _MAX_BATCHES_AN_OBJECT)


def _dose_range(config: TrainConfig, counts_a_pixel: float) -> tuple[float, float]:
    """Doses of simulated patterns over that of the scan."""
    if config.simulate_probes is not SimulateProbes.FAMILY:
        return 1.0, 1.0
    low, high = _FAMILY_DOSES
    return low / counts_a_pixel, high / counts_a_pixel


def _probe_draw(config: TrainConfig, probe: ComplexArray) -> Callable[[np.random.Generator], ComplexArray] | None:
    """The function that draws the probes of simulated patterns; None if there is only one probe."""
    if config.simulate_probes is SimulateProbes.SCAN:
        return None
    if config.simulate_probes is SimulateProbes.AROUND:
        return partial(vary_probe, probe)
    return partial(draw_probe, probe.shape[-1], len(probe))


def term_names(weights: LossWeights) -> list[str]:
    """Names of the loss terms of measured groups."""
    return [name for name, weight in weights if weight]
