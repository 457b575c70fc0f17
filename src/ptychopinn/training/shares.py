"""What share of the loss each pattern of a batch has."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ptychopinn.typing import AnyArray


def loss_shares(batch: Mapping[str, AnyArray]) -> dict[str, AnyArray]:
    """What share each pattern and each group of a batch has in the means over the whole batch.

    The loss sums over what it is given, times these shares. So a batch may be cut into parts, or spread over devices,
    if its shares are cut with it: the sums over the parts are those of the batch. What only fills a part up has 0.

    Parameters
    ----------
    batch:
        ``member`` (g, C) and ``simulated_counts`` (b, N, N), or one of them.

    Returns
    -------
    Float32, those that there are: ``member_share`` (g, C), of each pattern among all; ``group_share`` (g,), of each
    group; ``simulated_share`` (b,), of each simulated pattern. Each adds up to 1.
    """
    found: dict[str, AnyArray] = {}
    if "member" in batch:
        member = batch["member"]
        anchor = member[:, 0]  # always a member, where there is a group at all
        found = {"member_share": member / member.sum(), "group_share": anchor / anchor.sum()}
    if "simulated_counts" in batch:
        size = len(batch["simulated_counts"])
        found["simulated_share"] = np.full(size, 1 / size, np.float32)
    return found
