"""AdamW with the constants of `ptychopinn.training.optimizer`, and the running average of the weights."""

from __future__ import annotations

from collections.abc import Mapping

from ptychopinn.config.train import ClipAlgorithm, TrainConfig
from ptychopinn.training.optimizer import BETAS, CLIP_EPSILON, EPSILON, PROBE_RATE, WEIGHT_DECAY
from ptychopinn_tf._tensorflow import tf

_NETWORK = "network/"


class AdamW:
    """AdamW with weight decay on the network only, and another rate for probe and scale.

    Keras's AdamW adds epsilon before it corrects the bias of the second moment, and has one rate for all.
    ``variables`` are the trained ones by name.
    """

    def __init__(self, variables: Mapping[str, tf.Variable]) -> None:
        self.trained = dict(variables)
        self.step = tf.Variable(0, trainable=False, dtype=tf.int64, name="step")
        self.first = {name: tf.Variable(tf.zeros_like(v), trainable=False) for name, v in self.trained.items()}
        self.second = {name: tf.Variable(tf.zeros_like(v), trainable=False) for name, v in self.trained.items()}

    def variables(self) -> dict[str, tf.Variable]:
        """The state of the optimizer, by name."""
        moments = {f"{name}/first": v for name, v in self.first.items()}
        return {"step": self.step, **moments, **{f"{name}/second": v for name, v in self.second.items()}}

    def apply(self, gradients: Mapping[str, tf.Tensor], rate: tf.Tensor) -> None:
        """Take one step; ``rate`` is the network's learning rate."""
        step = tf.cast(self.step.assign_add(1), tf.float32)
        b1, b2 = BETAS
        debias, root_debias = 1 - b1**step, tf.sqrt(1 - b2**step)
        for name, gradient in gradients.items():
            weight, first, second = self.trained[name], self.first[name], self.second[name]
            network = name.startswith(_NETWORK)
            own = rate if network else rate * PROBE_RATE
            m = first.assign(first + (1 - b1) * (gradient - first))
            v = second.assign(b2 * second + (1 - b2) * gradient**2)
            kept = weight * (1 - own * WEIGHT_DECAY) if network else weight
            weight.assign(kept - own / debias * m / (tf.sqrt(v) / root_debias + EPSILON))


def clipped(gradients: Mapping[str, tf.Tensor], config: TrainConfig) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
    """Gradients clipped as the configuration says, and whether their norm, if it is needed for that, is finite."""
    limit = config.gradient_clip
    if limit is None:
        return dict(gradients), tf.constant(True)
    if config.gradient_clip_algorithm is ClipAlgorithm.VALUE:
        return {name: tf.clip_by_value(g, -limit, limit) for name, g in gradients.items()}, tf.constant(True)
    norm = tf.sqrt(tf.add_n([tf.reduce_sum(gradient**2) for gradient in gradients.values()]))
    factor = tf.minimum(limit / (norm + CLIP_EPSILON), 1.0)
    return {name: gradient * factor for name, gradient in gradients.items()}, tf.math.is_finite(norm)


def move_average(average: Mapping[str, tf.Variable], weights: Mapping[str, tf.Variable], kept: tf.Tensor) -> None:
    """Update the running average of the weights; equal values stay bitwise equal."""
    for name, variable in average.items():
        variable.assign(weights[name] + kept * (variable - weights[name]))
