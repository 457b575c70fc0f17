"""Values of patterns that are no measurement: marks, values that are not finite, and negative ones.

They join the bad pixels where most patterns have them, else the bad values of the patterns that they are in. The
contract of files, messages of streams and arrays in Python use these rules, so all give the same findings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ptychopinn.data.bad_values import BadValues, Unmeasured, unite
from ptychopinn.data.diagnostics import Findings
from ptychopinn.data.lazy_rows import LazyRows, release_pages
from ptychopinn.data.pattern_checks import preview
from ptychopinn.data.statistics import PatternStatistics, holds, is_mark, is_never_counted, pattern_statistics
from ptychopinn.data.subsampling import evenly_spread
from ptychopinn.typing import AnyArray, BoolArray, FloatArray, IntArray

_MAX_SHARE = 0.5  # of all values that may be marks, or not finite
_MAX_NEGATIVE = 0.2  # of values, and of pixels, that may be negative; more come from the subtraction of a dark image
_FAR_LOWER = 1 / 16  # of a mark: mean of the other values of a pixel that is no saturated one
_SAMPLE = 64  # patterns that show how often a pixel has a mark
_NONE: IntArray = np.zeros(0, np.int64)
_READ_PIXELS = 1 << 20  # of patterns read at a time
_ROUNDS = 4  # at most: one mark may hide another


@dataclass(frozen=True, eq=False)
class _Kind:
    """A kind of values that are no measurement."""

    what: str  # a pixel has
    are: str  # the values are
    code: str
    times: IntArray  # (N, N): in how many patterns each pixel has one
    most: float  # of all values; more are refused
    most_pixels: float = 1.0  # that have one in any pattern
    test: Callable[[FloatArray], BoolArray] | None = None  # of any values
    # (k,) and (k,): patterns and pixels that have one, where that is known and not at pixels that have one in all
    pairs: tuple[IntArray, IntArray] | None = None


def mark_bad_values(
    key: str, patterns: AnyArray | LazyRows, known: Unmeasured, findings: Findings
) -> tuple[PatternStatistics, Unmeasured]:
    """Find marks, values that are not finite, and negative ones.

    A pixel that has them in at least half of the patterns joins the bad pixels. Otherwise they join the bad values of
    the patterns that they are in.

    Parameters
    ----------
    key:
        Name of the patterns in findings.
    known:
        What is known to be bad.

    Returns
    -------
    The statistics of what was measured, and what was not.
    """
    bad = known
    if bad.values is not None:
        pixels = bad.pixels | (bad.values.times == patterns.shape[0])
        bad = Unmeasured(pixels, bad.values.outside(pixels))
    seen = pattern_statistics(patterns, bad.pixels, bad.values)
    for _ in range(_ROUNDS):
        kinds = [kind for kind in _kinds(patterns, bad, seen) if _is_usable(kind, patterns.shape[0])]
        if not kinds:
            break
        bad = _join(key, patterns, bad, kinds, findings)
        seen = pattern_statistics(patterns, bad.pixels, bad.values)
    if bad.values is not None:
        bad = replace(bad, values=replace(bad.values, fill=seen.mean.astype(np.float32)))
    return seen, bad


def find_marks(patterns: AnyArray, bad_pixels: BoolArray, before: FloatArray) -> BadValues | None:
    """Marks in some patterns of a stream: which pixels have them in all patterns shows only later.

    ``before`` is (N, N): mean of what each pixel measured in earlier patterns, NaN where that was nothing. A value
    that is not far above it is no mark, unless no detector counts so far.
    """
    found = None
    for _ in range(_ROUNDS):
        seen = pattern_statistics(patterns, bad_pixels, found)
        kind = _marks(patterns, Unmeasured(bad_pixels, found), seen)
        every = np.flatnonzero(kind.times == len(patterns))
        some = kind.pairs or (_NONE, _NONE)
        rows = np.concatenate([np.repeat(np.arange(len(patterns)), len(every)), some[0]])
        pixels = np.concatenate([np.tile(every, len(patterns)), some[1]])
        tops, lower = seen.tops.ravel()[pixels], before.ravel()[pixels]
        sure = np.isnan(lower) | (lower < _FAR_LOWER * tops) | is_never_counted(tops)
        more = BadValues.of_pairs(rows[sure], pixels[sure], len(patterns), bad_pixels.shape)
        if more is None or len(more.pixels) > _MAX_SHARE * patterns.size:
            break
        found = unite(found, more)
    return found


def _marks(patterns: AnyArray | LazyRows, bad: Unmeasured, seen: PatternStatistics) -> _Kind:
    """Marks that are the largest value of their pixel."""
    count = patterns.shape[0]
    constant = _constant_marks(patterns, seen.mean)
    times = np.where(constant, count, 0)
    own = np.iinfo(patterns.dtype).max if patterns.dtype.kind in "ui" else -1
    # The largest value of the own dtype, now and then, is saturation.
    likely = is_mark(seen.tops) & ~constant & ((seen.tops < own) | is_never_counted(seen.tops) | (own < 0))
    places = np.flatnonzero(likely)
    tops = seen.tops.ravel()[places]
    if len(places):
        sample = np.asarray(patterns[evenly_spread(count, _SAMPLE)]).reshape(-1, times.size)[:, places]
        share = holds(sample.astype(np.float64), tops).mean(axis=0)
        others = (seen.mean.ravel()[places] - share * tops) / np.maximum(1 - share, 1 / (2 * count))
        sure = is_never_counted(tops) | (others < _FAR_LOWER * tops)
    else:
        sure = np.zeros(0, bool)
    pairs = _find(patterns, bad.values, [lambda values: holds(values, tops)], places if sure.any() else _NONE)[0]
    pairs = _with_sure_marks(pairs, seen.tops, places[sure])
    np.add.at(times.ravel(), pairs[1], 1)
    what = "a value that marks gaps (the largest of an integer, or its root)"
    return _Kind(what, "marks of gaps", "DATA-035", times, _MAX_SHARE, pairs=pairs)


def _with_sure_marks(pairs: tuple[IntArray, IntArray], tops: FloatArray, sure: IntArray) -> tuple[IntArray, IntArray]:
    """Patterns and pixels that have marks: at sure pixels, and where the pattern has the same mark at sure ones."""
    rows, pixels = pairs
    marks, is_sure = tops.ravel()[pixels], np.isin(pixels, sure)
    stays = is_sure.copy()
    for mark in np.unique(marks[is_sure]):
        same = holds(marks, mark)
        stays |= same & np.isin(rows, rows[same & is_sure])
    return rows[stays], pixels[stays]


def _kinds(patterns: AnyArray | LazyRows, bad: Unmeasured, seen: PatternStatistics) -> list[_Kind]:
    alike = seen.negatives[0] == seen.negatives[1]  # a mark, and no noise about zero
    return [
        _marks(patterns, bad, seen),
        _Kind(
            "values that are not finite",
            "not finite",
            "DATA-034",
            seen.not_finite_times,
            _MAX_SHARE,
            test=lambda values: ~np.isfinite(values),
        ),
        _Kind(
            "negative values",
            "negative",
            "DATA-034",
            seen.negative_times,
            _MAX_NEGATIVE,
            1.0 if alike else _MAX_NEGATIVE,
            test=lambda values: values < 0,
        ),
    ]


def _is_usable(kind: _Kind, count: int) -> bool:
    """Whether a kind is there, and in no more values and pixels than gaps have."""
    share = float(kind.times.mean()) / count
    return 0 < share <= kind.most and float((kind.times > 0).mean()) <= kind.most_pixels


def _join(
    key: str, patterns: AnyArray | LazyRows, bad: Unmeasured, kinds: Sequence[_Kind], findings: Findings
) -> Unmeasured:
    """What is bad with values of some kinds; a finding each."""
    count, size = patterns.shape[0], (int(patterns.shape[1]), int(patterns.shape[2]))
    often = [2 * kind.times >= count for kind in kinds]
    pixels = bad.pixels | np.any(often, axis=0)
    tested = [kind for kind in kinds if kind.test is not None]
    places = np.flatnonzero(np.any([kind.times > 0 for kind in tested], axis=0) & ~pixels) if tested else _NONE
    found_by = iter(_find(patterns, bad.values, [kind.test for kind in tested if kind.test is not None], places))
    values = bad.values
    for kind, mask in zip(kinds, often, strict=True):
        rows, found = _outside(kind.pairs, pixels) if kind.pairs is not None else next(found_by)
        if mask.any():
            where = tuple(np.argwhere(mask)[0].tolist())
            message = f"{int(mask.sum())} pixels have {kind.what}, such as (y, x) {where}; they join bad_pixels."
            findings.warning(key, message, "", kind.code)
        if len(rows):
            findings.warning(
                key,
                f"{len(rows)} values of {len(np.unique(rows))} of {count} patterns are {kind.are}: patterns "
                f"{preview(np.unique(rows))}; they join bad_values.",
                "",
                kind.code,
            )
            values = unite(values, BadValues.of_pairs(rows, found, count, size))
    return Unmeasured(pixels, None if values is None else values.outside(pixels))


def _outside(pairs: tuple[IntArray, IntArray], bad_pixels: BoolArray) -> tuple[IntArray, IntArray]:
    stays = ~bad_pixels.ravel()[pairs[1]]
    return pairs[0][stays], pairs[1][stays]


def _find(
    patterns: AnyArray | LazyRows,
    known: BadValues | None,
    tests: Sequence[Callable[[FloatArray], BoolArray]],
    places: IntArray,
) -> list[tuple[IntArray, IntArray]]:
    """Numbers of patterns and of pixels, among some pixels, of values that pass each test and are not known to be bad.

    A test gets (b, k) float32 values of the k pixels.
    """
    found: list[list[tuple[IntArray, IntArray]]] = [[(_NONE, _NONE)] for _ in tests]
    count, area = patterns.shape[0], int(patterns.shape[1] * patterns.shape[2])
    step = max(1, _READ_PIXELS // area)
    for start in range(0, count if len(places) else 0, step):
        part = slice(start, min(start + step, count))
        with np.errstate(over="ignore", invalid="ignore"):
            block = np.asarray(patterns[part]).reshape(-1, area)[:, places].astype(np.float32)
            if known is not None:
                block[known.masks(part).reshape(-1, area)[:, places]] = 0
            for pairs, test in zip(found, tests, strict=True):
                rows, columns = np.nonzero(test(block))
                pairs.append((rows + start, places[columns]))
        release_pages(patterns)
    return [(np.concatenate([rows for rows, _ in pairs]), np.concatenate([at for _, at in pairs])) for pairs in found]


def refuse_bad_values(key: str, patterns: AnyArray | LazyRows, seen: PatternStatistics, findings: Findings) -> None:
    """Refuse values that are not finite, and negative ones, that `mark_bad_values` left."""
    for what, where, times in (
        ("not finite", seen.not_finite, seen.not_finite_times),
        ("negative", seen.negative, seen.negative_times),
    ):
        if len(where):
            findings.error(
                key,
                f"{len(where)} of {patterns.shape[0]} patterns have values that are {what}, in "
                f"{int((times > 0).sum())} pixels (shape {patterns.shape}, {patterns.dtype}; the first is pattern "
                f"{where[0]}).",
                "Mark those pixels in bad_pixels, remove those patterns, or repair them (dark subtraction makes "
                "negatives).",
            )


def _constant_marks(patterns: AnyArray | LazyRows, mean: FloatArray) -> BoolArray:
    """Pixels that hold a mark in every pattern, also where other pixels have higher values."""
    found = is_mark(mean)
    for number in {0, patterns.shape[0] // 2, patterns.shape[0] - 1} if found.any() else ():
        with np.errstate(over="ignore", invalid="ignore"):
            found &= np.isclose(patterns[number].astype(np.float32), mean, rtol=1e-5, atol=0)
    return found
