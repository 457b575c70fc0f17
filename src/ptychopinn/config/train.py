"""How a network is trained."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, ClassVar, NamedTuple, Self

from pydantic import Field, model_validator

from ptychopinn.config._base import Config
from ptychopinn.config.model import Architecture, ModelConfig, ModelType

_DEFAULT_EPOCHS = 60
MAY_CHANGE: dict[str, Any] = {"may_change": True}  # when a run is resumed; all else would make it another training


class _StepDefaults(NamedTuple):
    batch_size: int
    learning_rate: float


# On a GPU a step of 64 groups takes as long as one of 4, and a larger batch bears a larger rate.
_ON_CPU, _ON_GPU = _StepDefaults(4, 1e-3), _StepDefaults(64, 3e-3)


class Scheduler(StrEnum):
    """Course of the learning rate over the training (over max_time where that ends it)."""

    CONSTANT = "constant"  # after a warm-up
    COSINE = "cosine"  # warm-up, then down along a cosine
    EXPONENTIAL = "exponential"  # warm-up, then down to a hundredth


class SimulateObjects(StrEnum):
    """Whether training patterns are simulated from ever new objects under the scan's probe."""

    OFF = "off"
    ONLY = "only"  # simulated patterns alone, supervised and free of the phase gauge
    MIXED = "mixed"  # every batch has both


class StartProbe(StrEnum):
    """The probe that a training begins with when it goes on from a model."""

    MODEL = "model"
    SCAN = "scan"


class SimulateProbes(StrEnum):
    """The probe that simulated patterns are made with."""

    SCAN = "scan"  # the scan's own
    AROUND = "around"  # drawn around it, while the network is given the scan's own: it learns that a probe may be off
    FAMILY = "family"  # anything, and the network is told which: it learns to work with any probe


class DetectorOffset(StrEnum):
    """What is done about patterns that are not centred where the probe's far field is."""

    NONE = "none"
    ESTIMATE = "estimate"  # once, from the centre of mass of the mean counts
    TRAIN = "train"  # estimated, then followed such that the object's mean phase gradient is zero


class ClipAlgorithm(StrEnum):
    """How gradients are clipped."""

    NORM = "norm"
    VALUE = "value"


class CheckpointMode(StrEnum):
    """Whether the monitored figure is better small or large."""

    MIN = "min"
    MAX = "max"


class LengthOptions(Config):
    """How long a training lasts."""

    title: ClassVar[str] = "training: length"

    nepochs: int | None = Field(
        None,
        ge=1,
        description=f"Epochs at most (default {_DEFAULT_EPOCHS}, or as many as max_time allows).",
        json_schema_extra=MAY_CHANGE,
    )
    max_time: float | None = Field(
        None,
        gt=0,
        description="Seconds of training at most; the schedule fits itself in.",
        json_schema_extra=MAY_CHANGE,
    )
    early_stopping_patience: int | None = Field(
        None,
        ge=1,
        description="Stop after this many epochs without a better monitored figure.",
        json_schema_extra=MAY_CHANGE,
    )

    @property
    def epoch_limit(self) -> int | None:
        """Epochs at most; None where only max_time ends the training."""
        if self.nepochs is None and self.max_time is None:
            return _DEFAULT_EPOCHS
        return self.nepochs


class DataOptions(Config):
    """What is drawn from the scan."""

    title: ClassVar[str] = "training: data"

    batch_size: int | None = Field(
        None,
        ge=1,
        le=4096,
        description=f"Groups in a batch, or as many as there are (default: {_ON_CPU.batch_size} on a CPU, "
        f"{_ON_GPU.batch_size} on a GPU).",
    )
    seed: int = Field(0, ge=0, description="Seed of weights, groups and simulated objects.")
    n_groups: int | None = Field(
        None, ge=1, description="Groups drawn in an epoch (default: enough for one look at every pattern)."
    )
    neighbor_count: int | None = Field(
        None,
        ge=1,
        description="A group is drawn from this many nearest neighbours of its anchor, itself not counted "
        "(default: half as many again as group size - 1, where there are).",
    )
    n_subsample: int | None = Field(None, ge=1, description="Train on this many patterns, drawn at random.")
    subsample_seed: int = Field(0, ge=0, description="Seed of that draw.")
    sequential_sampling: bool = Field(
        False, description="Take the first n_subsample patterns and the anchors in scan order, not at random."
    )
    validation_fraction: float = Field(
        0.0, ge=0, le=0.5, description="Share of the scan held out as one region of space, not at random."
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
                "nll_weight, mae_weight and realspace_mae_weight are all 0: nothing ties the object to the data; "
                "give one of them a weight"
            )
        return self

    def loss_weights(self, model: ModelConfig) -> LossWeights:
        """The weights in force for a model type.

        Raises
        ------
        ValueError
            If no term ties the object to the data for this model type.
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
                "model_type supervised needs realspace_mae_weight above 0; with 0 it learns from no known patch: "
                "use model_type pinn"
            )
        if weights.nll == weights.mae == weights.realspace_mae == 0:
            raise ValueError(
                f"nothing ties the object of model_type {model.model_type} to the data; "
                "set nll_weight, mae_weight or realspace_mae_weight"
            )
        return weights


class PhysicsOptions(Config):
    """What of the measurement is not taken as given."""

    title: ClassVar[str] = "training: physics"

    probe_trainable: bool = Field(False, description="Let training refine the probe.")
    intensity_scale_trainable: bool = Field(False, description="Let training refine the scale of the counts.")
    detector_offset: DetectorOffset | None = Field(
        None,
        description="Shift between the patterns and the probe's far field (default train for fast, estimate for cnn, "
        "which is not told how it moves).",
    )
    probe_refinement: int = Field(
        10,
        ge=0,
        le=1000,
        description="Passes of ePIE before training that refine the probe, which is kept if the residual falls by a "
        "tenth or more; 0 is none.",
    )
    start_probe: StartProbe | None = Field(
        None,
        description="A training that goes on from a model begins with the model's probe (the default), or with the "
        "scan's, as a new training does.",
    )

    def offset_for(self, model: ModelConfig) -> DetectorOffset:
        """What is done about the detector's offset for a model.

        Raises
        ------
        ValueError
            If the network could not follow it.
        """
        follows = model.architecture is Architecture.FAST
        if self.detector_offset is None:
            return DetectorOffset.TRAIN if follows else DetectorOffset.ESTIMATE
        if self.detector_offset is DetectorOffset.TRAIN and not follows:
            raise ValueError(
                f"detector_offset train moves the probe at every step, of which architecture {model.architecture} is "
                "not told; use estimate"
            )
        return self.detector_offset


class SimulatedDataOptions(Config):
    """Training patterns that are simulated."""

    title: ClassVar[str] = "training: simulated patterns"

    simulate_objects: SimulateObjects = Field(
        SimulateObjects.OFF,
        description="Train on simulated objects under the scan's probe.",
        json_schema_extra={"flag_alone": "only"},
    )
    simulate_probes: SimulateProbes = Field(
        SimulateProbes.SCAN,
        description="Simulate patterns with the scan's probe, with probes drawn around it, or with a family of "
        "probes; a model for a family needs no training on a new scan (infer with probe_source scan).",
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
    scheduler: Scheduler = Field(Scheduler.COSINE, description="Course of the learning rate.")
    accumulate_grad_batches: int = Field(1, ge=1, description="Batches whose gradients make one step.")
    gradient_clip: float | None = Field(1.0, gt=0, description="Clip gradients at this.")
    gradient_clip_algorithm: ClipAlgorithm = Field(ClipAlgorithm.NORM, description="Clip the norm or each value.")
    weight_averaging: float = Field(
        0.99,
        ge=0,
        lt=1,
        description="Decay of the running average of the weights that is kept as the model; 0 is none.",
    )

    @model_validator(mode="after")
    def _clip_algorithm_has_a_clip(self) -> Self:
        if self.gradient_clip is None and self.gradient_clip_algorithm is not ClipAlgorithm.NORM:
            raise ValueError(
                f"gradient_clip_algorithm {self.gradient_clip_algorithm} has no effect without gradient_clip; set both"
            )
        return self


class CheckpointOptions(Config):
    """What is kept of a training under way."""

    title: ClassVar[str] = "training: checkpoints"

    checkpoint_every: int | None = Field(
        None,
        ge=1,
        description="Epochs between checkpoints (default: whenever the last one is 20 seconds old).",
        json_schema_extra=MAY_CHANGE,
    )
    checkpoint_top_k: int = Field(
        1, ge=1, description="Best checkpoints kept besides the newest.", json_schema_extra=MAY_CHANGE
    )
    checkpoint_monitor: str = Field(
        "auto",
        description="Figure that ranks checkpoints and stops early; auto: validation_loss if there is one, else loss.",
    )
    checkpoint_mode: CheckpointMode = Field(CheckpointMode.MIN, description="Whether that figure is better small.")


class TrainConfig(  # the fields of the last base come first
    CheckpointOptions,
    OptimizerOptions,
    SimulatedDataOptions,
    PhysicsOptions,
    LossOptions,
    DataOptions,
    LengthOptions,
):
    """Training: the options of all groups above, flat, as flags and files have them."""

    title: ClassVar[str] = ""

    def resolved(self, *, on_gpu: bool) -> ResolvedTrainConfig:
        """The same training, with what depends on the device filled in.

        Parameters
        ----------
        on_gpu:
            Whether a GPU computes, which many groups keep no longer busy than a few.
        """
        defaults = _ON_GPU if on_gpu else _ON_CPU
        given = self.model_dump(exclude_none=True)
        return ResolvedTrainConfig.model_validate(defaults._asdict() | given)

    def check_all_settings_used(self, model: ModelConfig, *, validates: bool) -> None:
        """Refuse settings that nothing in this training would look at.

        Parameters
        ----------
        model:
            The model.
        validates:
            Whether there is a validation loss, whose terms are those of measured patterns.

        Raises
        ------
        ValueError
            Naming them.
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
            reason = "the known patches of model_type supervised say what the mean phase gradient is"
            if only:
                reason = "simulate_objects only trains on no measured pattern"
            elif not physics:
                reason = "nll_weight and mae_weight are 0: no pattern is predicted"
            raise ValueError(f"{', '.join(names)} cannot act: {reason}")


class ResolvedTrainConfig(TrainConfig):
    """A training whose settings are all those in force on its device (`TrainConfig.resolved`)."""

    batch_size: int
    learning_rate: float
