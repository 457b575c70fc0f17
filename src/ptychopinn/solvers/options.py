"""What passes update, and with which steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from ptychopinn.arrays import Array
from ptychopinn.config.infer import Background, Likelihood
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.errors import ConfigError, DataError
from ptychopinn.typing import AnyArray

_MIN_ALPHA = 1e-3
_BATCH_VALUES = 1 << 19  # exit-wave values in a batch of a long scan: 4 MiB per array
_MAX_DEVICE_BATCH = 256


class Steps(NamedTuple):
    """Steps of one batch; see `StepSchedule`. Numbers, or arrays without axes in a step that a device repeats."""

    alpha: float | Array
    momentum: float | Array
    object_step: float | Array
    probe_step: float | Array


@dataclass(frozen=True)
class StepSchedule:
    """How the steps change over the passes.

    With a small ``alpha`` and momentum, slow phases converge several times faster. With ``alpha`` 1 and small steps,
    noise averages out. The steps change from the first to the second kind with the cube of the fraction of passes done.
    """

    # ``a`` of the formula at the start; it rises to 1. With 1 the brightest point of the probe limits the step of every
    # pixel, with 0 the illumination of the pixel itself.
    alpha: float = 0.1
    momentum: float = 0.5  # fraction of the object's last change that is repeated, 8 times per pass; it falls to 0
    # Step of the object in the first and in the last pass.
    object_step: float = 1.0
    last_object_step: float = 0.3  # small steps at the end average the noise of the counts
    # Step of a free probe, as a fraction of the object's step, and its momentum, which acts at every batch.
    probe_step: float = 0.1
    probe_momentum: float = 0.7
    # Step of free positions in the first pass, in Gauss-Newton steps. Later steps follow from the effect of the earlier
    # ones (`SecantStep`).
    position_step: float = 4.0  # the object hides most of a position error, so the first step is enlarged
    settles: bool = True  # False keeps the first steps for all passes

    def __post_init__(self) -> None:
        momenta = (self.momentum, self.probe_momentum)
        if not 0 <= self.alpha <= 1 or not all(0 <= momentum < 1 for momentum in momenta) or not self.probe_step >= 0:
            raise ConfigError(
                f"alpha {self.alpha}, momenta of {momenta[0]} and {momenta[1]} and probe_step {self.probe_step} were "
                "given.",
                "alpha is between 0 and 1, momenta are 0 or more and less than 1, probe_step is 0 or more.",
            )

    def at(self, share: float) -> Steps:
        """Steps after a fraction of the passes."""
        late = share**3 if self.settles else 0.0
        step = self.object_step + (self.last_object_step - self.object_step) * late
        return Steps(
            alpha=max(self.alpha, _MIN_ALPHA) ** (1 - late),
            momentum=self.momentum * (1 - late),
            object_step=step,
            probe_step=self.probe_step * step,
        )


@dataclass(frozen=True)
class PassOptions:
    """Which quantities the passes update, and how."""

    schedule: StepSchedule
    update_probe: bool = False
    update_positions: bool = False
    update_flux: bool = False
    update_background: Background | None = None  # kind of background to fit; None keeps that of the model
    # Number of modes by which the probe varies over the scan, at least those of the model. They and their weights are
    # updated, with a fixed probe only the weights. 0 keeps those of the model.
    update_variation: int = 0
    likelihood: Likelihood = Likelihood.AMPLITUDE  # that the far fields follow
    batch_size: int | None = None  # patterns that update the object together; None chooses `default_batch_size`
    seed: int = 0  # of the order of the patterns

    def __post_init__(self) -> None:
        if self.batch_size is not None and self.batch_size < 1:
            raise ConfigError(f"batch_size {self.batch_size} was given.", "Give 1 or more.")


def default_batch_size(count: int, size: int, *, on_host: bool = True) -> int:
    """Default number of patterns in a batch, for ``count`` patterns of ``size`` x ``size`` pixels.

    It is 1/32 of the scan, at least 8 and at most 32, or 1/64 of a long scan if that is more. The patterns of a batch
    seldom overlap in a long scan, and larger batches use the cores better while an exit wave takes at most 4 MiB per
    mode. On a device the maximum is 256; after a pass over 10,000 patterns the error is 2% larger than with 32.
    """
    most = _BATCH_VALUES // size**2 if on_host else _MAX_DEVICE_BATCH
    return max(min(max(count // 32, 8), 32), min(count // 64, most))


def check_passes(data: ScanDataset, probe: AnyArray, passes: int) -> None:
    """Check the arguments of passes.

    Raises
    ------
    DataError
        If the scan is empty, or the probe does not have the shape of its patterns.
    ConfigError
        If ``passes`` is negative.
    """
    if passes < 0:
        raise ConfigError(f"{passes} passes were asked for.", "Give 0 or more.")
    if len(data) == 0:
        raise DataError("The scan has no patterns.", "Give a scan with at least one.")
    if probe.ndim != 3 or probe.shape[1:] != (data.N, data.N):
        raise DataError(
            f"The probe has the shape {tuple(probe.shape)}; (modes, {data.N}, {data.N}) is needed.",
            "Crop or pad the probe.",
        )
