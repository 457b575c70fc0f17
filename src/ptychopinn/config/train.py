"""Settings of a training."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar, NamedTuple, Self

from pydantic import Field, model_validator

from ptychopinn.config._base import Config
from ptychopinn.config.model import Architecture, ModelConfig, ModelType
from ptychopinn.config.settings import marks

_DEFAULT_EPOCHS = 60


class _StepDefaults(NamedTuple):
    batch_size: int
    learning_rate: float


# On a GPU a step of 64 groups takes as long as one of 4, and a larger batch allows a larger rate.
_ON_CPU, _ON_GPU = _StepDefaults(4, 1e-3), _StepDefaults(64, 3e-3)


class Scheduler(StrEnum):
    """Schedule of the learning rate over the training (over max_time if that ends it)."""

    CONSTANT = "constant"  # after a warm-up
    COSINE = "cosine"  # warm-up, then down along a cosine
    EXPONENTIAL = "exponential"  # warm-up, then down to a hundredth


class SimulateObjects(StrEnum):
    """Whether training patterns are simulated, each epoch from new objects."""

    OFF = "off"
    ONLY = "only"  # simulated patterns only, supervised, phases included
    MIXED = "mixed"  # measured and simulated patterns in every batch


class StartProbe(StrEnum):
    """The initial probe of a training that continues from a model."""

    MODEL = "model"
    SCAN = "scan"


class SimulateProbes(StrEnum):
    """The probe of simulated patterns."""

    SCAN = "scan"  # the scan's own
    AROUND = "around"  # random variations of it; the network gets the scan's own, and learns to tolerate its errors
    FAMILY = "family"  # random probes of all kinds, which the network gets: it learns to work with any probe


class DetectorOffset(StrEnum):
    """How to treat patterns that are shifted against the probe's far field."""

    NONE = "none"
    ESTIMATE = "estimate"  # once, from the centre of mass of the mean counts
    TRAIN = "train"  # estimated, then adjusted so that the object's mean phase gradient is zero


class ClipAlgorithm(StrEnum):
    """How gradients are clipped."""

    NORM = "norm"
    VALUE = "value"


class CheckpointMode(StrEnum):
    """Whether a lower or a higher monitored figure is better."""

    MIN = "min"
    MAX = "max"


class LengthOptions(Config):
    """How long a training lasts."""

    title: ClassVar[str] = "training: length"

    max_time: float | None = Field(
        None,
        gt=0,
        title="Time limit",
        description="End the training after this time. The course of the learning rate is fitted to it.",
        json_schema_extra=marks(basic=True, unit="s", unset="no limit", may_change=True),
    )
    nepochs: int | None = Field(
        None,
        ge=1,
        title="Epochs",
        description="End the training after this many epochs. In an epoch the network sees every pattern about once.",
        json_schema_extra=marks(basic=True, unset=f"{_DEFAULT_EPOCHS}, or the time limit", may_change=True),
    )
    early_stopping_patience: int | None = Field(
        None,
        ge=1,
        title="Early stopping",
        description="End the training after this many epochs in which the monitored figure was not better.",
        json_schema_extra=marks(unit="epochs", unset="no early stopping", may_change=True),
    )

    @property
    def epoch_limit(self) -> int | None:
        """Maximum number of epochs; None if only max_time ends the training."""
        if self.nepochs is None and self.max_time is None:
            return _DEFAULT_EPOCHS
        return self.nepochs


class DataOptions(Config):
    """Sampling of the scan."""

    title: ClassVar[str] = "training: data"

    batch_size: int | None = Field(
        None,
        ge=1,
        le=4096,
        title="Batch size",
        description="Groups of patterns in a batch; all of them if there are fewer. More groups need more memory.",
        json_schema_extra=marks(
            basic=True, unit="groups", unset=f"{_ON_CPU.batch_size} (CPU), {_ON_GPU.batch_size} (GPU)"
        ),
    )
    seed: int = Field(
        0, ge=0, title="Seed", description="Random seed of the network's weights, the groups and simulated objects."
    )
    n_groups: int | None = Field(
        None,
        ge=1,
        title="Groups per epoch",
        description="Groups of patterns that are drawn in an epoch.",
        json_schema_extra=marks(unit="groups", unset="every pattern once"),
    )
    neighbor_count: int | None = Field(
        None,
        ge=1,
        title="Neighbours of a group",
        description="A group is a pattern and others that are drawn from so many of its nearest neighbours.",
        json_schema_extra=marks(unit="patterns", unset="1.5 x (group size - 1)"),
    )
    n_subsample: int | None = Field(
        None,
        ge=1,
        title="Patterns to train on",
        description="Train on this many patterns, drawn at random from the scan.",
        json_schema_extra=marks(unit="patterns", unset="all"),
    )
    subsample_seed: int = Field(
        0, ge=0, title="Seed for choosing patterns", description="Random seed of the draw of patterns."
    )
    sequential_sampling: bool = Field(
        False,
        title="Patterns in scan order",
        description="Take patterns and groups in the order of the scan, not at random.",
    )
    validation_fraction: float = Field(
        0.0,
        ge=0,
        le=0.5,
        title="Validation share",
        description="Share of the scan that is held out to validate on: one connected region, because neighbours "
        "overlap.",
    )


class LossWeights(Config):
    """The weights of the loss terms in force."""

    nll: float
    mae: float
    total_variation: float
    realspace_mae: float


class LossOptions(Config):
    """The weights of the loss terms."""

    title: ClassVar[str] = "training: loss"

    nll_weight: float | None = Field(
        None,
        ge=0,
        title="Weight of the counts",
        description="Weight of the negative log-likelihood of the counts under Poisson noise.",
        json_schema_extra=marks(unset="1 (pinn), 0 (supervised)"),
    )
    mae_weight: float = Field(
        0.0,
        ge=0,
        title="Weight of amplitudes",
        description="Weight of the mean absolute error of the diffraction amplitudes.",
    )
    realspace_weight: float = Field(
        0.0,
        ge=0,
        title="Weight of smoothness",
        description="Weight of the total variation of the object, which favours smooth objects.",
    )
    realspace_mae_weight: float | None = Field(
        None,
        ge=0,
        title="Weight of the known object",
        description="Weight of the mean absolute error of predicted patches, where the object is known.",
        json_schema_extra=marks(unset="0 (pinn), 1 (supervised)"),
    )

    @model_validator(mode="after")
    def _loss_has_a_term(self) -> Self:
        if self.nll_weight == 0 and self.mae_weight == 0 and self.realspace_mae_weight == 0:
            raise ValueError(
                "nll_weight, mae_weight and realspace_mae_weight are all 0, so the loss ignores the data; "
                "give one of them a weight"
            )
        return self

    def loss_weights(self, model: ModelConfig) -> LossWeights:
        """The weights in force for a model type.

        Raises ValueError if no term of the loss uses the data for this model type.
        """
        supervised = model.model_type is ModelType.SUPERVISED
        weights = LossWeights(
            nll=(0.0 if supervised else 1.0) if self.nll_weight is None else self.nll_weight,
            mae=self.mae_weight,
            total_variation=self.realspace_weight,
            realspace_mae=(1.0 if supervised else 0.0)
            if self.realspace_mae_weight is None
            else self.realspace_mae_weight,
        )
        if supervised and weights.realspace_mae == 0:
            raise ValueError(
                "model_type supervised needs realspace_mae_weight above 0, else it ignores the known patches: "
                "use model_type pinn"
            )
        if weights.nll == weights.mae == weights.realspace_mae == 0:
            raise ValueError(
                f"the loss of model_type {model.model_type} ignores the data; "
                "set nll_weight, mae_weight or realspace_mae_weight"
            )
        return weights


class PhysicsOptions(Config):
    """Quantities of the measurement that training may correct."""

    title: ClassVar[str] = "training: physics"

    probe_trainable: bool = Field(
        False, title="Train the probe", description="Let the training change the probe together with the network."
    )
    intensity_scale_trainable: bool = Field(
        False,
        title="Train the intensity scale",
        description="Let the training change the scale between the model and the counts.",
    )
    detector_offset: DetectorOffset | None = Field(
        None,
        title="Detector offset",
        description="Shift of the patterns on the detector: none, estimate it once, or follow it in training (fast "
        "only).",
        json_schema_extra=marks(unset="train (fast), estimate (cnn)"),
    )
    probe_refinement: int = Field(
        10,
        ge=0,
        le=1000,
        title="Probe refinement first",
        description="Passes of ePIE that correct the probe before training. The result is kept if it lowers the "
        "residual by a tenth or more; 0 is no refinement.",
        json_schema_extra=marks(unit="passes"),
    )
    start_probe: StartProbe | None = Field(
        None,
        title="Probe to start with",
        description="A training that goes on from a model starts with the probe of the model or of the scan.",
        json_schema_extra=marks(unset="model"),
    )

    def offset_for(self, model: ModelConfig) -> DetectorOffset:
        """How to treat the detector's offset for a model.

        Raises ValueError if the network does not get the probe and so cannot follow the offset.
        """
        follows = model.architecture is Architecture.FAST
        if self.detector_offset is None:
            return DetectorOffset.TRAIN if follows else DetectorOffset.ESTIMATE
        if self.detector_offset is DetectorOffset.TRAIN and not follows:
            raise ValueError(
                f"detector_offset train moves the probe at every step, but architecture {model.architecture} does not "
                "get the probe; use estimate"
            )
        return self.detector_offset


class SimulatedDataOptions(Config):
    """Simulated training patterns."""

    title: ClassVar[str] = "training: simulated patterns"

    simulate_objects: SimulateObjects = Field(
        SimulateObjects.OFF,
        title="Simulated objects",
        description="Train on simulated objects under the scan's probe: not at all, only on them, or on them and the "
        "measured patterns together (mixed), which helps sparse and dim scans.",
        json_schema_extra=marks(basic=True, bare_value="only"),
    )
    simulate_probes: SimulateProbes = Field(
        SimulateProbes.SCAN,
        title="Probes of simulated patterns",
        description="Simulate with the scan's probe, with probes around it, or with a family of probes. A model for a "
        "family needs no training for a new scan (infer with probe_source scan).",
        json_schema_extra=marks(needs="simulate_objects"),
    )


class OptimizerOptions(Config):
    """Steps of the optimizer."""

    title: ClassVar[str] = "training: optimizer"

    learning_rate: float | None = Field(
        None,
        gt=0,
        le=1,
        title="Learning rate",
        description="Highest step size of the optimizer.",
        json_schema_extra=marks(basic=True, unset=f"{_ON_CPU.learning_rate:g} (CPU), {_ON_GPU.learning_rate:g} (GPU)"),
    )
    scheduler: Scheduler = Field(
        Scheduler.COSINE,
        title="Learning rate schedule",
        description="Course of the learning rate after a short warm-up: constant, down along a cosine, or "
        "exponentially down to a hundredth.",
    )
    accumulate_grad_batches: int = Field(
        1,
        ge=1,
        title="Batches per step",
        description="Batches whose gradients are added up for one step of the optimizer.",
        json_schema_extra=marks(unit="batches"),
    )
    gradient_clip: float | None = Field(
        1.0,
        gt=0,
        title="Gradient limit",
        description="Reduce gradients that are larger than this.",
        json_schema_extra=marks(unset="no limit"),
    )
    gradient_clip_algorithm: ClipAlgorithm = Field(
        ClipAlgorithm.NORM,
        title="Gradient limit applies to",
        description="Apply the gradient limit to the norm of all gradients, or to each value.",
    )
    weight_averaging: float = Field(
        0.99,
        ge=0,
        lt=1,
        title="Weight averaging",
        description="Decay of the running average of the weights. The model keeps that average; 0 is no averaging.",
    )

    @model_validator(mode="after")
    def _clip_algorithm_has_a_clip(self) -> Self:
        if self.gradient_clip is None and self.gradient_clip_algorithm is not ClipAlgorithm.NORM:
            raise ValueError(
                f"gradient_clip_algorithm {self.gradient_clip_algorithm} has no effect without gradient_clip; set both"
            )
        return self


class CheckpointOptions(Config):
    """Checkpoints."""

    title: ClassVar[str] = "training: checkpoints"

    checkpoint_every: int | None = Field(
        None,
        ge=1,
        title="Checkpoint interval",
        description="Write a checkpoint after every so many epochs.",
        json_schema_extra=marks(unit="epochs", unset="when the last one is 20 s old", may_change=True),
    )
    checkpoint_top_k: int = Field(
        1,
        ge=1,
        title="Checkpoints to keep",
        description="Best checkpoints that are kept besides the newest one.",
        json_schema_extra=marks(may_change=True),
    )
    checkpoint_monitor: str = Field(
        "auto",
        title="Monitored figure",
        description="Column of the history that ranks checkpoints and stops early; auto is validation_loss if there is "
        "one, else loss.",
    )
    checkpoint_mode: CheckpointMode = Field(
        CheckpointMode.MIN,
        title="Best value of that figure",
        description="Whether the monitored figure is better small or large.",
    )


class TrainConfig(  # the fields of the last base come first
    CheckpointOptions,
    OptimizerOptions,
    SimulatedDataOptions,
    PhysicsOptions,
    LossOptions,
    DataOptions,
    LengthOptions,
):
    """Settings of a training: the fields of all groups above in one model, as flags and files have them."""

    title: ClassVar[str] = ""

    def resolved(self, *, on_gpu: bool) -> ResolvedTrainConfig:
        """Fill in the defaults that depend on the device: batch size and learning rate."""
        defaults = _ON_GPU if on_gpu else _ON_CPU
        given = self.model_dump(exclude_none=True)
        return ResolvedTrainConfig.model_validate(defaults._asdict() | given)

    def check_all_settings_used(self, model: ModelConfig, *, validates: bool) -> None:
        """Refuse settings that have no effect in this training.

        ``validates``: there is a validation loss, whose terms are those of measured patterns.

        Raises
        ------
        ValueError
            With the names of these settings.
        """
        weights = self.loss_weights(model)
        only = self.simulate_objects is SimulateObjects.ONLY
        physics = bool(weights.nll or weights.mae)
        physics_to_train = {
            "probe_trainable": self.probe_trainable,
            "intensity_scale_trainable": self.intensity_scale_trainable,
        }
        offset_to_follow = {"detector_offset train": self.detector_offset is DetectorOffset.TRAIN}
        blur = {"gaussian_smoothing_sigma": model.gaussian_smoothing_sigma > 0}
        loss_weights_given = {
            "nll_weight": bool(self.nll_weight),
            "mae_weight": self.mae_weight > 0,
            "realspace_weight": self.realspace_weight > 0,
            "realspace_mae_weight": bool(self.realspace_mae_weight),
            "neighbor_count": self.neighbor_count is not None,
        }
        idle = {
            **(physics_to_train if only or not physics else {}),
            **(offset_to_follow if only or model.model_type is ModelType.SUPERVISED else {}),
            **(blur if (only and not validates) or not physics else {}),
            **(loss_weights_given if only and not validates else {}),
        }
        if names := [name for name, is_set in idle.items() if is_set]:
            reason = "the known patches of model_type supervised fix the mean phase gradient"
            if only:
                reason = "with simulate_objects only, no measured pattern is trained on"
            elif not physics:
                reason = "nll_weight and mae_weight are 0: no pattern is predicted"
            raise ValueError(f"{', '.join(names)} has no effect: {reason}")


class ResolvedTrainConfig(TrainConfig):
    """Settings of a training with the defaults of its device filled in (`TrainConfig.resolved`)."""

    batch_size: int
    learning_rate: float
