"""Constants of the loss, the optimizer and the running average of the weights, the same in every backend.

AdamW (Loshchilov & Hutter, ICLR 2019) over the network, Adam over whatever physics is free::

    w <- w - rate * decay * w;  m <- b1 m + (1 - b1) g;  v <- b2 v + (1 - b2) g^2
    w <- w - rate / (1 - b1^t) * m / (sqrt(v / (1 - b2^t)) + epsilon)
"""

from __future__ import annotations

BETAS = (0.9, 0.99)
EPSILON = 1e-7  # a gradient that is hardly more than rounding makes no step of full size
WEIGHT_DECAY = 1e-4  # of the network's weights; probe and scale are not drawn to 0
PROBE_RATE = 0.2  # of the network's learning rate: the probe is nearly right, the network is not
OFFSET_RATE = 0.02  # of the offset that a batch shows, a step: averages over fifty batches
SIMULATED_DEVIANCE = 0.5  # weight of the counts beside the patches, in the loss of simulated patterns
CLIP_EPSILON = 1e-6  # added to the norm that gradients are clipped by


def ema_decay(decay: float, steps: int) -> float:
    """Share of itself that the running average keeps at a step.

    Its memory grows up to ``decay``, so that a short training forgets where it began.

    Parameters
    ----------
    decay:
        `ptychopinn.config.train.TrainConfig.weight_averaging`.
    steps:
        Steps averaged before this one; at the first the average is the weights.
    """
    return 0.0 if steps == 0 else min(decay, (1 + steps) / (10 + steps))
