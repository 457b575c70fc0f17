"""The loss of a batch: which terms there are and how they are weighted."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from ptychopinn.config.model import ModelConfig
from ptychopinn.config.train import LossWeights
from ptychopinn.training.optimizer import SIMULATED_DEVIANCE
from ptychopinn_torch.batches import TensorBatch
from ptychopinn_torch.forward import GroupForward, shift_probe
from ptychopinn_torch.losses import amplitude_error, patch_error, poisson_deviance, total_variation
from ptychopinn_torch.model import Model, patch_weights


@dataclass(frozen=True)
class Terms:
    """Unweighted loss terms of a batch, their weighted sum, and `neighbour_products`.

    Those of a part of a batch are its share: their sums over the parts are those of the batch.
    """

    total: Tensor
    parts: dict[str, Tensor]
    products: Tensor | None = None


def detached(terms: Terms) -> Terms:
    """The same without what the gradient needs."""
    return Terms(terms.total.detach(), {name: value.detach() for name, value in terms.parts.items()}, terms.products)


def added(one: Terms, other: Terms) -> Terms:
    """The sums of two parts of a batch."""
    products = None if one.products is None or other.products is None else one.products + other.products
    return Terms(one.total + other.total, {k: v + other.parts[k] for k, v in one.parts.items()}, products)


class Objective(nn.Module):
    """Loss of batches of one scan.

    Parameters
    ----------
    config:
        Model configuration.
    weights:
        Weights of the terms.
    mean_counts:
        Mean photons a pattern of the scan.
    good:
        (N, N) float32, DC at [0, 0]: 1 where the detector measured.
    reach:
        `ptychopinn.data.batches.GroupBatches.reach`.
    shows_probe:
        Whether the network is given the probe that simulated patterns were made with, else the model's own.
    """

    good: Tensor

    def __init__(
        self,
        config: ModelConfig,
        weights: LossWeights,
        mean_counts: float,
        good: Tensor,
        reach: int,
        *,
        shows_probe: bool = False,
    ) -> None:
        super().__init__()
        self.shows_probe = shows_probe
        self.config, self.weights, self.mean_counts = config, weights, mean_counts
        self.register_buffer("good", good)
        self.group = GroupForward(config.N, config.patch_size, reach)

    def forward(self, model: Model, batch: TensorBatch, whole: TensorBatch | None = None) -> Terms:
        """Terms of a batch, or of a part of the whole one; their sum carries the gradient."""
        whole = batch if whole is None else whole
        parts: dict[str, Tensor] = {}
        products = None
        probe = model.illumination()
        if batch.counts is not None:
            measured, products = self._measured(model, batch, whole, probe)
            parts.update(measured)
        if batch.simulated_counts is not None and batch.simulated_truth is not None:
            lit = probe.detach() if batch.simulated_probe is None else batch.simulated_probe
            shown = lit if self.shows_probe else probe.detach()
            patches = model(batch.simulated_counts[:, None], self.mean_counts, model.lit(shown, self.good))[:, 0]
            weights = patch_weights(lit, self.config.patch_size)
            expected = self.group.alone(patches, lit * math.sqrt(self.mean_counts))
            deviance = poisson_deviance(expected, batch.simulated_counts, self.good, self.mean_counts)
            errors = patch_error(patches, batch.simulated_truth, weights) + SIMULATED_DEVIANCE * deviance
            parts["simulated"] = errors.sum() / len(cast(Tensor, whole.simulated_counts))
        factor = dict(self.weights) | {"simulated": 1.0}
        total = torch.stack([factor[name] * value for name, value in parts.items()]).sum()
        return Terms(total, parts, products)

    def _measured(
        self, model: Model, batch: TensorBatch, whole: TensorBatch, probe: Tensor
    ) -> tuple[dict[str, Tensor], Tensor]:
        counts, member = batch.counts, batch.member
        offsets, shift, fractions = batch.offsets, batch.shift, batch.fractions
        if counts is None or member is None or offsets is None or shift is None or fractions is None:
            raise TypeError("a measured batch has counts, member, offsets, shift and fractions")
        patches = model(counts, self.mean_counts, model.lit(probe.detach(), self.good))
        light = patch_weights(probe, self.config.patch_size)
        all_members = cast(Tensor, whole.member)
        drawn = patches.shape[1]  # those of all members, or the anchor's alone
        products = neighbour_products(patches, light * member[:, :drawn, None, None])

        def over_members(values: Tensor) -> Tensor:
            size = values.shape[1]
            return (values * member[:, :size]).sum() / all_members[:, :size].sum()

        parts: dict[str, Tensor] = {}
        w = self.weights
        if w.nll or w.mae or w.total_variation:
            canvas = self.group.canvas(patches, light, offsets[:, :drawn], shift[:, :drawn], member[:, :drawn])
            if w.nll or w.mae:
                probes = shift_probe(probe * math.sqrt(self.mean_counts), fractions.flatten(0, 1))
                expected = self.group(
                    canvas,
                    probes.reshape(*counts.shape[:2], *probes.shape[1:]),
                    offsets,
                    sigma_px=self.config.gaussian_smoothing_sigma,
                )
                if w.nll:
                    parts["nll"] = over_members(poisson_deviance(expected, counts, self.good, self.mean_counts))
                if w.mae:
                    parts["mae"] = over_members(amplitude_error(expected, counts, self.good, self.mean_counts))
            if w.total_variation:
                parts["total_variation"] = total_variation(canvas).sum() / len(all_members)
        if w.realspace_mae and batch.truth is not None:
            parts["realspace_mae"] = over_members(patch_error(patches, batch.truth[:, :drawn], light))
        return parts, products


def neighbour_products(patches: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums of every pixel times its neighbour's conjugate.

    Parameters
    ----------
    patches:
        (..., n, n) complex64.
    weights:
        broadcastable to them, float32.

    Returns
    -------
    (2,) complex64, along y and along x, no gradient. Their angles are the mean phase gradient in rad a pixel: a
    detector's offset shows as such a ramp under a fixed probe.
    """
    with torch.no_grad():
        dy = (patches[..., 1:, :] * patches[..., :-1, :].conj() * weights[..., 1:, :]).sum()
        dx = (patches[..., 1:] * patches[..., :-1].conj() * weights[..., 1:]).sum()
        return torch.stack([dy, dx])
