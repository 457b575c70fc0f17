"""The loss of a batch: which terms there are and how they are weighted."""

from __future__ import annotations

from typing import NamedTuple

from ptychopinn.config.train import SimulateProbes
from ptychopinn.training import ScanBatches, TrainingPlan
from ptychopinn.training.optimizer import SIMULATED_DEVIANCE
from ptychopinn_tf._tensorflow import tf
from ptychopinn_tf.batches import TensorBatch
from ptychopinn_tf.forward import GroupForward, as_complex, shift_probe
from ptychopinn_tf.losses import amplitude_error, patch_error, poisson_deviance, total_variation
from ptychopinn_tf.model import Model, patch_weights


class Terms(NamedTuple):
    """Unweighted loss terms of a batch, their weighted sum, and `neighbour_products`.

    Each is this device's share: their sums over the devices are those of the batch.
    """

    total: tf.Tensor
    parts: dict[str, tf.Tensor]
    products: tf.Tensor


class Objective:
    """Loss of batches of one scan.

    Parameters
    ----------
    plan:
        The training.
    scan:
        Its training or its validation scan.
    """

    def __init__(self, plan: TrainingPlan, scan: ScanBatches) -> None:
        self.config, self.weights = plan.model, plan.weights
        self.shows_probe = plan.config.simulate_probes is SimulateProbes.FAMILY
        self.mean_counts = tf.constant(scan.scaling.mean_counts, tf.float32)
        self.good = tf.constant(scan.good)
        self.group = GroupForward(plan.model.N, plan.model.patch_size, scan.groups.reach)

    def __call__(self, model: Model, batch: TensorBatch) -> Terms:
        """Terms of a batch; their sum carries the gradient."""
        parts: dict[str, tf.Tensor] = {}
        products = tf.zeros((2, 2))
        probe = model.illumination()
        if "counts" in batch:
            measured, products = self._measured(model, batch, probe)
            parts.update(measured)
        if "simulated_counts" in batch:
            counts = batch["simulated_counts"][:, None]
            lit = batch.get("simulated_probe", tf.stop_gradient(probe))
            shown = lit if self.shows_probe else tf.stop_gradient(probe)
            patches = model(counts, self.mean_counts, model.lit(shown, self.good))[:, 0]
            weights = patch_weights(lit, self.config.patch_size)
            expected = self.group.alone(patches, lit * as_complex(tf.sqrt(self.mean_counts)))
            deviance = poisson_deviance(expected, batch["simulated_counts"], self.good, self.mean_counts)
            errors = patch_error(patches, batch["simulated_truth"], weights) + SIMULATED_DEVIANCE * deviance
            parts["simulated"] = tf.reduce_sum(errors * batch["simulated_present"]) / batch["simulated"]
        factor = dict(self.weights) | {"simulated": 1.0}
        total = tf.add_n([factor[name] * value for name, value in parts.items()])
        return Terms(total, parts, products)

    def _measured(self, model: Model, batch: TensorBatch, probe: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        counts, member, offsets = batch["counts"], batch["member"], batch["offsets"]
        patches = model(counts, self.mean_counts, model.lit(tf.stop_gradient(probe), self.good))
        light = patch_weights(probe, self.config.patch_size)
        drawn = patches.shape[1]  # those of all members, or the anchor's alone
        products = neighbour_products(patches, light * member[:, :drawn, None, None])

        def over_members(values: tf.Tensor) -> tf.Tensor:
            size = values.shape[1]
            return tf.reduce_sum(values * member[:, :size]) / batch["members" if size > 1 else "groups"]

        parts: dict[str, tf.Tensor] = {}
        w = self.weights
        if w.nll or w.mae or w.total_variation:
            shift = batch["shift"][:, :drawn]
            canvas = self.group.canvas(patches, light, offsets[:, :drawn], shift, member[:, :drawn])
            if w.nll or w.mae:
                fractions = tf.reshape(batch["fractions"], (-1, 2))
                probes = shift_probe(probe * as_complex(tf.sqrt(self.mean_counts)), fractions)
                expected = self.group(
                    canvas,
                    tf.reshape(probes, (*counts.shape[:2], *probes.shape[1:])),
                    offsets,
                    sigma_px=self.config.gaussian_smoothing_sigma,
                )
                if w.nll:
                    parts["nll"] = over_members(poisson_deviance(expected, counts, self.good, self.mean_counts))
                if w.mae:
                    parts["mae"] = over_members(amplitude_error(expected, counts, self.good, self.mean_counts))
            if w.total_variation:
                present = total_variation(canvas) * batch["present"]
                parts["total_variation"] = tf.reduce_sum(present) / batch["groups"]
        if w.realspace_mae and "truth" in batch:
            parts["realspace_mae"] = over_members(patch_error(patches, batch["truth"][:, :drawn], light))
        return parts, products


def neighbour_products(patches: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Weighted sums of every pixel times its neighbour's conjugate.

    Parameters
    ----------
    patches:
        (..., n, n) complex64.
    weights:
        broadcastable to them, float32.

    Returns
    -------
    (2, 2) float32, real and imaginary part along y and along x, no gradient. Their angles are the mean phase gradient
    in rad a pixel: a detector's offset shows as such a ramp under a fixed probe.
    """
    patches, w = tf.stop_gradient(patches), as_complex(tf.stop_gradient(weights))
    dy = patches[..., 1:, :] * tf.math.conj(patches[..., :-1, :]) * w[..., 1:, :]
    dx = patches[..., 1:] * tf.math.conj(patches[..., :-1]) * w[..., 1:]
    sums = tf.stack([tf.reduce_sum(dy), tf.reduce_sum(dx)])
    return tf.stack([tf.math.real(sums), tf.math.imag(sums)], axis=1)
