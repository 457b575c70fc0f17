"""Shares of patterns and groups in the loss of a batch."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ptychopinn.typing import AnyArray


def loss_shares(batch: Mapping[str, AnyArray]) -> dict[str, AnyArray]:
    """The share of each pattern and each group in the means over the whole batch.

    The loss is a sum weighted with these shares. So a batch can be split into parts, or over devices, together with its
    shares: the sums of the parts add up to that of the batch. Padding has the share 0.

    Parameters
    ----------
    batch:
        ``member`` (g, C) and ``simulated_counts`` (b, N, N), or one of them.

    Returns
    -------
    Float32 arrays that each add up to 1: ``member_share`` (g, C) of the patterns, ``group_share`` (g,) of the groups,
    ``simulated_share`` (b,) of the simulated patterns.
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
