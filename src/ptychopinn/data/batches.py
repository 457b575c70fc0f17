"""Batches of patterns for training, validation and inference, with the detector's DC at ``[0, 0]``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ptychopinn.config.model import ModelConfig
from ptychopinn.config.train import ResolvedTrainConfig, TrainConfig
from ptychopinn.data.dataset import ScanDataset
from ptychopinn.data.grouping import default_group_count, draw_groups, neighbour_table, neighbours, subsample
from ptychopinn.errors import DataError
from ptychopinn.geometry import split_positions
from ptychopinn.interpolation import shift_weights
from ptychopinn.typing import ComplexArray, FloatArray, IntArray


@dataclass(frozen=True, eq=False)
class GroupLayout:
    """Positions of the members of groups; column 0 is the anchor."""

    patterns: IntArray  # (g, C) int64 numbers of the patterns; that of the anchor for a missing member
    offsets: IntArray  # (g, C, 2) int64 (y, x): corner of each member minus that of its anchor, limited to the reach
    fractions: FloatArray  # (g, C, 2) float32 (y, x): fractional part of the position, pixels
    shift: FloatArray  # (g, C, 2, 7) float32: `ptychopinn.interpolation.shift_weights` of the fractions
    member: FloatArray  # (g, C) float32: 0 for a member that is missing or does not overlap its anchor


@dataclass(frozen=True, eq=False)
class GroupBatch:
    """Groups of neighbouring patterns with their `GroupLayout` and counts."""

    # (g, C, N, N) float32, DC at [0, 0]; zeros for missing members, bad values as in `ScanDataset.marked_counts`
    counts: FloatArray
    # The next four as in `GroupLayout`.
    offsets: IntArray
    fractions: FloatArray
    shift: FloatArray
    member: FloatArray
    truth: ComplexArray | None  # (g, C, n, n) complex64 known patches, or None


def read_patterns(data: ScanDataset, indices: IntArray) -> FloatArray:
    """`ScanDataset.marked_counts` of some patterns: (b,) indices to (b, N, N) float32, DC at [0, 0]."""
    return np.fft.ifftshift(data.marked_counts(indices), axes=(-2, -1))


def read_groups(data: ScanDataset, groups: IntArray) -> FloatArray:
    """Counts of groups: (g, C) indices to (g, C, N, N). Index -1 (missing) gives zeros; each pattern is read once."""
    if groups.shape[1] == 1:
        return read_patterns(data, groups[:, 0])[:, None]
    members, places = np.unique(groups.ravel(), return_inverse=True)
    there = members >= 0
    counts = np.zeros((len(members), data.N, data.N), np.float32)
    counts[there] = read_patterns(data, members[there])
    return counts[places.reshape(groups.shape)]


def inference_groups(data: ScanDataset, size: int) -> IntArray:
    """Groups of every pattern with its nearest neighbours.

    Returns
    -------
    (n, size) int64, the pattern first; -1 at the end if its scan has fewer.
    """
    alone = np.arange(len(data))[:, None]
    if size == 1:
        return alone
    return np.concatenate([alone, neighbours(data.positions, data.scan_index, size - 1)], axis=1)


def training_subset(data: ScanDataset, config: TrainConfig) -> ScanDataset:
    """Select ``n_subsample`` patterns of a scan. Raises ConfigError if the scan has fewer patterns."""
    if config.n_subsample is None:
        return data
    return data.select(subsample(len(data), config.n_subsample, config.subsample_seed, config.sequential_sampling))


def check_pattern_count(data: ScanDataset) -> None:
    """Raise DataError if there are fewer than two patterns."""
    if len(data) < 2:
        raise DataError(
            f"'{data.name}' has {len(data)} pattern{'s' * (len(data) != 1)}; training needs at least two that overlap.",
            "Give a scan with more positions.",
        )


class GroupBatches:
    """Batches of random groups, new in each epoch; epoch k depends only on the seed and k. Thread-safe.

    ``truth`` gives the known patches of patterns.

    Raises
    ------
    DataError
        If the scan has too few patterns for a group.
    ConfigError
        If neighbor_count or the group size contradict the scan.
    """

    def __init__(
        self,
        data: ScanDataset,
        model: ModelConfig,
        config: ResolvedTrainConfig,
        truth: Callable[[IntArray], ComplexArray] | None = None,
    ) -> None:
        check_pattern_count(data)
        self.data, self._config, self._truth = data, config, truth
        self._drawn: tuple[int, IntArray] | None = None  # groups of the newest epoch
        self.group_size = model.patterns_per_group
        self._table = neighbour_table(data, self.group_size, config.neighbor_count)
        self._corners, self._fractions = split_positions(data.positions, data.N)
        self._shift = shift_weights(self._fractions).astype(np.float32)
        self.reach = self._reach(model.patch_size)
        self.n_groups = config.n_groups or default_group_count(len(data), self.group_size)

    def _reach(self, patch_size: int) -> int:
        """Largest distance of corners in the groups at which patches still overlap."""
        offsets = np.abs(self._corners[self._table] - self._corners[:, None]).max(axis=2)
        needed = offsets[(self._table >= 0) & (offsets < patch_size)]
        return int(needed.max(initial=0))

    @property
    def batches_per_epoch(self) -> int:
        """Batches per epoch, including the smaller last one."""
        return -(-self.n_groups // self._config.batch_size)

    @property
    def largest_batch(self) -> int:
        """Groups per batch, except the smaller last one."""
        return min(self._config.batch_size, self.n_groups)

    def groups(self, epoch: int) -> IntArray:
        """The groups of an epoch, (n_groups, C) int64; -1: no such member."""
        drawn = self._drawn
        if drawn is None or drawn[0] != epoch:
            rng = np.random.default_rng([self._config.seed, epoch])
            sequential = self._config.sequential_sampling
            groups = draw_groups(self._table, self.group_size, self.n_groups, rng, sequential=sequential)
            drawn = self._drawn = (epoch, groups)
        return drawn[1]

    def batch(self, epoch: int, number: int) -> GroupBatch:
        """Batch ``number`` of an epoch."""
        size = self._config.batch_size
        return self.read(self.groups(epoch)[number * size : (number + 1) * size])

    def layout(self, groups: IntArray) -> GroupLayout:
        """The layout of groups, (g, C) int64; -1: no such member."""
        patterns = np.where(groups >= 0, groups, groups[:, :1])
        offsets = self._corners[patterns] - self._corners[patterns[:, :1]]
        near = np.abs(offsets).max(axis=2) <= self.reach
        return GroupLayout(
            patterns=patterns,
            offsets=np.where(near[..., None], offsets, 0),
            fractions=self._fractions[patterns].astype(np.float32),
            shift=self._shift[patterns],
            member=((groups >= 0) & near).astype(np.float32),
        )

    def truth(self, patterns: IntArray) -> ComplexArray | None:
        """Known patches of patterns: (...,) numbers to (..., n, n) complex64; None if none are known."""
        if self._truth is None:
            return None
        flat = self._truth(patterns.ravel())
        return flat.reshape(*patterns.shape, *flat.shape[1:])

    def read(self, groups: IntArray) -> GroupBatch:
        """Read groups, (g, C) int64; -1: no such member."""
        layout = self.layout(groups)
        return GroupBatch(
            counts=read_groups(self.data, groups),
            offsets=layout.offsets,
            fractions=layout.fractions,
            shift=layout.shift,
            member=layout.member,
            truth=self.truth(layout.patterns),
        )
