"""Settings of a training."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, ClassVar, NamedTuple, Self

from pydantic import Field, model_validator

from ptychopinn.config._base import Config
from ptychopinn.config.model import Architecture, ModelConfig, ModelType

_DEFAULT_EPOCHS = 60
MAY_CHANGE: dict[str, Any] = {"may_change": True}  # when a run is resumed; the other fields may not


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

    nepochs: int | None = Field(
        None,
        ge=1,
        description=f"Maximum number of epochs (default {_DEFAULT_EPOCHS}, or as many as max_time allows).",
        json_schema_extra=MAY_CHANGE,
    )
    max_time: float | None = Field(
        None,
        gt=0,
        description="Maximum training time in seconds; the learning rate schedule is fitted to it.",
        json_schema_extra=MAY_CHANGE,
    )
    early_stopping_patience: int | None = Field(
        None,
        ge=1,
        description="Stop after this many epochs in which the monitored figure did not improve.",
        json_schema_extra=MAY_CHANGE,
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
        description=f"Groups per batch, at most all of them (default: {_ON_CPU.batch_size} on a CPU, "
        f"{_ON_GPU.batch_size} on a GPU).",
    )
    seed: int = Field(0, ge=0, description="Seed of weights, groups and simulated objects.")
    n_groups: int | None = Field(
        None, ge=1, description="Groups per epoch (default: enough to use every pattern once)."
    )
    neighbor_count: int | None = Field(
        None,
        ge=1,
        description="Number of nearest neighbours of the anchor from which a group is drawn, without the anchor "
        "(default: 1.5 (group size - 1)).",
    )
    n_subsample: int | None = Field(None, ge=1, description="Train on this many patterns, drawn at random.")
    subsample_seed: int = Field(0, ge=0, description="Seed of that draw.")
    sequential_sampling: bool = Field(
        False, description="Take the first n_subsample patterns and the anchors in scan order instead of at random."
    )
    validation_fraction: float = Field(
        0.0, ge=0, le=0.5, description="Fraction of the scan held out for validation, as one region in space."
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
        None, ge=0, description="Weight of the Poisson likelihood (default: 1 for pinn, 0 for supervised)."
    )
    mae_weight: float = Field(0.0, ge=0, description="Weight of the mean absolute error of diffraction amplitudes.")
    realspace_weight: float = Field(0.0, ge=0, description="Weight of the total variation of the object.")
    realspace_mae_weight: float | None = Field(
        None,
        ge=0,
        description="Weight of the mean absolute error against known patches (default: 0 for pinn, 1 for supervised).",
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

        Raises
        ------
        ValueError
            If no term of the loss uses the data for this model type.
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

    probe_trainable: bool = Field(False, description="Refine the probe during training.")
    intensity_scale_trainable: bool = Field(False, description="Refine the scale of the counts during training.")
    detector_offset: DetectorOffset | None = Field(
        None,
        description="Shift between the patterns and the probe's far field (default: train for fast, estimate for cnn, "
        "which does not get the probe).",
    )
    probe_refinement: int = Field(
        10,
        ge=0,
        le=1000,
        description="ePIE passes that refine the probe before training; the refined probe is kept if it lowers the "
        "residual by a tenth or more. 0: none.",
    )
    start_probe: StartProbe | None = Field(
        None,
        description="Initial probe of a training that continues from a model: the model's (default), or the scan's, as "
        "in a new training.",
    )

    def offset_for(self, model: ModelConfig) -> DetectorOffset:
        """How to treat the detector's offset for a model.

        Raises
        ------
        ValueError
            If the network does not get the probe and so cannot follow the offset.
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
        description="Train on patterns of simulated objects: not, only, or mixed with the measured ones.",
        json_schema_extra={"flag_alone": "only"},
    )
    simulate_probes: SimulateProbes = Field(
        SimulateProbes.SCAN,
        description="Probes of the simulated patterns: the scan's own, random variations of it, or a broad family. A "
        "model for a family needs no training on a new scan (infer with probe_source scan).",
    )

    @model_validator(mode="after")
    def _probes_have_objects(self) -> Self:
        if self.simulate_probes is not SimulateProbes.SCAN and self.simulate_objects is SimulateObjects.OFF:
            raise ValueError(f"simulate_probes {self.simulate_probes} has no effect without simulate_objects; set both")
        return self


class OptimizerOptions(Config):
    """Steps of the optimizer."""

    title: ClassVar[str] = "training: optimizer"

    learning_rate: float | None = Field(
        None,
        gt=0,
        le=1,
        description=f"Peak learning rate (default: {_ON_CPU.learning_rate:g} on a CPU, {_ON_GPU.learning_rate:g} on a "
        "GPU).",
    )
    scheduler: Scheduler = Field(Scheduler.COSINE, description="Schedule of the learning rate.")
    accumulate_grad_batches: int = Field(
        1, ge=1, description="Number of batches whose gradients are summed for one step."
    )
    gradient_clip: float | None = Field(1.0, gt=0, description="Limit at which gradients are clipped.")
    gradient_clip_algorithm: ClipAlgorithm = Field(ClipAlgorithm.NORM, description="Clip the norm or each value.")
    weight_averaging: float = Field(
        0.99,
        ge=0,
        lt=1,
        description="Decay of the running average of the weights, which becomes the model. 0: no average.",
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
        description="Epochs between checkpoints (default: one every 20 seconds).",
        json_schema_extra=MAY_CHANGE,
    )
    checkpoint_top_k: int = Field(
        1, ge=1, description="Number of best checkpoints kept besides the newest.", json_schema_extra=MAY_CHANGE
    )
    checkpoint_monitor: str = Field(
        "auto",
        description="Figure for ranking checkpoints and early stopping; auto: validation_loss if any, else loss.",
    )
    checkpoint_mode: CheckpointMode = Field(
        CheckpointMode.MIN, description="min: a lower figure is better; max: a higher one."
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

        Parameters
        ----------
        model:
            The model.
        validates:
            Whether there is a validation loss, whose terms are those of measured patterns.

        Raises
        ------
        ValueError
            With the names of these settings.
        """
        weights = self.loss_weights(model)
        only = self.simulate_objects is SimulateObjects.ONLY
        physics = bool(weights.nll or weights.mae)
        unlearnt = {
            "probe_trainable": self.probe_trainable,
            "intensity_scale_trainable": self.intensity_scale_trainable,
        }
        unfollowed = {"detector_offset train": self.detector_offset is DetectorOffset.TRAIN}
        unseen = {"gaussian_smoothing_sigma": model.gaussian_smoothing_sigma > 0}
        unweighed = {
            "nll_weight": bool(self.nll_weight),
            "mae_weight": self.mae_weight > 0,
            "realspace_weight": self.realspace_weight > 0,
            "realspace_mae_weight": bool(self.realspace_mae_weight),
            "neighbor_count": self.neighbor_count is not None,
        }
        idle = {
            **(unlearnt if only or not physics else {}),
            **(unfollowed if only or model.model_type is ModelType.SUPERVISED else {}),
            **(unseen if (only and not validates) or not physics else {}),
            **(unweighed if only and not validates else {}),
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
