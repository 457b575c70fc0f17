"""The loss of a batch, for the tensors of any framework.

A backend supplies its operations, its network and the physics of groups (`GroupPhysics`).
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from ptychopinn.config.train import SimulateProbes
from ptychopinn.training.losses import (
    amplitude_error,
    neighbour_products,
    patch_error,
    patch_weights,
    poisson_deviance,
    total_variation,
    without_marks,
)
from ptychopinn.training.operations import Operations, Tensor
from ptychopinn.training.optimizer import OFFSET_RATE, SIMULATED_DEVIANCE
from ptychopinn.training.plan import ScanBatches, TrainingPlan


class LossTerms(NamedTuple):
    """Loss terms of a batch.

    The terms of the parts of a batch add up to those of the batch.
    """

    total: Tensor  # the weighted sum of the terms; it carries the gradient
    parts: dict[str, Tensor]  # the terms by name, unweighted
    products: tuple[Tensor, ...]  # `neighbour_products`, if the detector's offset follows them; else empty

    def map(self, function: Callable[..., Tensor], *others: LossTerms) -> LossTerms:
        """Apply a function to every tensor, together with the same tensors of others."""
        return LossTerms(
            function(self.total, *(other.total for other in others)),
            {name: function(value, *(other.parts[name] for other in others)) for name, value in self.parts.items()},
            tuple(map(function, self.products, *(other.products for other in others))),
        )


def offset_step(ops: Operations, products: tuple[Tensor, ...], N: int) -> Tensor:  # noqa: N803
    """The step of the detector's offset after a batch, (2,) float32 (y, x) in detector pixels.

    ``products`` are the `neighbour_products` of the whole batch.
    """
    return ops.angle(ops.stack(list(products))) * (OFFSET_RATE * N / (2 * math.pi))


class GroupPhysics(Protocol):
    """A backend's physics of groups.

    Of `ptychopinn.data.batches.GroupBatch` are ``offsets`` (g, C, 2), ``fractions`` (g, C, 2), ``shift`` (g, C, 2, 7)
    and ``member`` (g, C).
    """

    def canvas(self, patches: Tensor, weights: Tensor, offsets: Tensor, shift: Tensor, member: Tensor) -> Tensor:
        """Weighted mean of the patches of each group, minus 1, on the anchor's pixels.

        (g, P, n, n) complex64 patches with (n, n) float32 weights, the intensity of the probe, to (g, M, M) complex64,
        M = n + 2 reach: 0, without gradient, where nothing covers it. Offsets, shift and member are those of the P
        patches.
        """
        ...

    def __call__(
        self, canvas: Tensor, probe: Tensor, offsets: Tensor, fractions: Tensor, *, sigma_px: float = 0.0
    ) -> Tensor:
        """Expected counts of each member, (g, C, N, N) float32, DC at [0, 0].

        ``canvas`` is that of `canvas`, ``probe`` (modes, N, N) complex64 in counts. ``sigma_px`` is the standard
        deviation of a blur of the exit wave in pixels; 0 is none.
        """
        ...

    def single_patterns(self, patches: Tensor, probe: Tensor) -> Tensor:
        """Expected counts of patches on whole pixels, with 1 + 0j around each.

        (b, n, n) complex64 patches to (b, N, N) float32, DC at [0, 0]. The probe is (modes, N, N) complex64 in counts,
        or (b, modes, N, N), one for each patch.
        """
        ...


class TrainedModel(Protocol):
    """A backend's model."""

    @property
    def illumination(self) -> Callable[[], Tensor]:
        """Returns the probe, (modes, N, N) complex64 in root mean counts, with the detector's offset."""
        ...

    def prepare_probe(self, probe: Tensor, good: Tensor) -> Any:
        """Prepare the probe for the call, once for all predictions.

        (modes, N, N) complex64 in root mean counts, or (b, modes, N, N), one for each pattern; ``good`` is (N, N)
        float32, DC at [0, 0]: 1 where the detector measured.
        """
        ...

    def __call__(self, counts: Tensor, mean_counts: float, sampled_probes: Any) -> Tensor:
        """Predict the patches of groups from their counts.

        (g, C, N, N) float32, DC at [0, 0], 0 at bad pixels, to (g, P, n, n) complex64; P is C, or 1 if only the
        anchor's patch is predicted. ``mean_counts`` are the photons of a mean pattern of the scan.
        """
        ...


class Objective:
    """Loss of batches of one scan.

    Parameters
    ----------
    scan:
        The training or the validation scan of the plan.
    group:
        Its physics, for the widths of the plan and the largest offset in the scan.
    good:
        `ScanBatches.good` as a tensor on the device of the loss.
    """

    def __init__(
        self, plan: TrainingPlan, scan: ScanBatches, ops: Operations, group: GroupPhysics, good: Tensor
    ) -> None:
        self._config, self._weights = plan.model, plan.weights
        self._mean_counts = scan.scaling.mean_counts
        self._marked = scan.groups.data.bad_values is not None
        self._ops, self._group, self._good = ops, group, good
        # Whether the network gets the probe of each simulated pattern; else it gets the model's own.
        self._tells_probe = plan.config.simulate_probes is SimulateProbes.FAMILY
        self._follows = plan.follow_offset and scan is plan.training

    def __call__(self, model: TrainedModel, batch: Mapping[str, Tensor]) -> LossTerms:
        """Terms of a batch, or of a part of one; ``batch`` has the arrays of `ptychopinn.training.EpochSource`."""
        probe = model.illumination()
        parts: dict[str, Tensor] = {}
        products: tuple[Tensor, ...] = ()
        if "counts" in batch:
            parts, products = self._measured(model, batch, probe)
        if "simulated_counts" in batch:
            parts["simulated"] = self._simulated(model, batch, self._ops.stop_gradient(probe))
        factor = dict(self._weights) | {"simulated": 1.0}
        total = functools.reduce(operator.add, (factor[name] * value for name, value in parts.items()))
        return LossTerms(total, parts, products)

    def _measured(
        self, model: TrainedModel, batch: Mapping[str, Tensor], probe: Tensor
    ) -> tuple[dict[str, Tensor], tuple[Tensor, ...]]:
        ops, w, mean_counts = self._ops, self._weights, self._mean_counts
        member, offsets = batch["member"], batch["offsets"]
        counts, good = batch["counts"], self._good
        if self._marked:
            counts, good = without_marks(ops, counts, good)
        patches = model(counts, mean_counts, model.prepare_probe(ops.stop_gradient(probe), self._good))
        light = patch_weights(ops, probe, self._config.patch_size)
        drawn = patches.shape[1]
        member = member[:, :drawn]
        products: tuple[Tensor, ...] = ()
        if self._follows:
            products = neighbour_products(ops, patches, light * member[..., None, None])

        parts: dict[str, Tensor] = {}
        if w.nll or w.mae or w.total_variation:
            canvas = self._group.canvas(patches, light, offsets[:, :drawn], batch["shift"][:, :drawn], member)
            if w.nll or w.mae:
                scaled, share = probe * math.sqrt(mean_counts), batch["member_share"]
                sigma = self._config.gaussian_smoothing_sigma
                expected = self._group(canvas, scaled, offsets, batch["fractions"], sigma_px=sigma)
                if w.nll:
                    parts["nll"] = ops.sum(poisson_deviance(ops, expected, counts, good, mean_counts) * share)
                if w.mae:
                    parts["mae"] = ops.sum(amplitude_error(ops, expected, counts, good, mean_counts) * share)
            if w.total_variation:
                parts["total_variation"] = ops.sum(total_variation(ops, canvas) * batch["group_share"])
        if w.realspace_mae and "truth" in batch:
            share = batch["member_share"] if drawn > 1 else batch["group_share"][:, None]
            parts["realspace_mae"] = ops.sum(patch_error(ops, patches, batch["truth"][:, :drawn], light) * share)
        return parts, products

    def _simulated(self, model: TrainedModel, batch: Mapping[str, Tensor], own_probe: Tensor) -> Tensor:
        ops, counts, mean_counts = self._ops, batch["simulated_counts"], self._mean_counts
        probe = batch.get("simulated_probe", own_probe)
        sampled_probes = model.prepare_probe(probe if self._tells_probe else own_probe, self._good)
        patches = model(counts[:, None], mean_counts, sampled_probes)[:, 0]
        weights = patch_weights(ops, probe, self._config.patch_size)
        expected = self._group.single_patterns(patches, probe * math.sqrt(mean_counts))
        deviance = poisson_deviance(ops, expected, counts, self._good, mean_counts)
        errors = patch_error(ops, patches, batch["simulated_truth"], weights) + SIMULATED_DEVIANCE * deviance
        return ops.sum(errors * batch["simulated_share"])
