"""ePIE: the classical iterative solver, in minibatches, with momentum.

Each pattern's exit wave keeps its modelled phase and is given its measured modulus; what that changes, ``d_j``, is
laid back onto the object and the probe:

    O += s sum_j conj(P_j) d_j / ((1 - a) sum_j |P_j|^2 + a max sum_j |P_j|^2)
    P += b sum_j conj(O_j) d_j / ((1 - a') sum_j |O_j|^2 + a' max sum_j |O_j|^2)

Sources: Maiden & Rodenburg, Ultramicroscopy 109, 1256 (2009); the denominators and the momentum: Maiden, Johnson &
Li, Optica 4, 736 (2017). With ``a`` small and momentum, slow phases settle several times sooner; with ``a`` 1 and small
steps noise averages out. So the course goes from the one to the other over the passes that were asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ptychopinn.data.dataset import ScanDataset
from ptychopinn.errors import ConfigError, DataError
from ptychopinn.interpolation import split_positions
from ptychopinn.monitor import NULL_MONITOR, Monitor
from ptychopinn.parallel import Crew
from ptychopinn.solvers.updates import CACHE_BYTES, MOMENTA_A_PASS, Amplitudes, Solution, usual_batch_size
from ptychopinn.stitching import Frame
from ptychopinn.typing import ComplexArray, IntArray

_SETTLED_STEP = 0.3  # the last steps, as a share of the first: they average the noise of the counts
_MOST_MOMENTUM = 0.6


@dataclass(frozen=True, eq=False)
class EPIEResult:
    """What a run of `epie` found.

    Attributes
    ----------
    object:
        (H, W) complex64; where no window reached, the start, or 1.
    frame:
        Where the array lies.
    probe:
        (modes, N, N) complex64 with the energy it started with.
    residuals:
        One figure a finished pass: ``R = sqrt(sum (A - A_model)^2 / sum A^2)`` over the good pixels, each pattern
        looked at just before it changes the object.
    """

    object: ComplexArray
    frame: Frame
    probe: ComplexArray
    residuals: tuple[float, ...]


def frame_of(data: ScanDataset) -> Frame:
    """Where an object of this scan lies: as its ``object_guess`` does, else the box of all windows."""
    if data.object_guess is not None:
        height, width = data.object_guess.shape
        return Frame((height, width))
    return Frame.around(data.positions, data.N)


def epie(
    data: ScanDataset,
    probe: ComplexArray,
    *,
    passes: int = 10,
    start: ComplexArray | None = None,
    frame: Frame | None = None,
    update_probe: bool = False,
    batch_size: int | None = None,
    alpha: float = 0.1,
    beta: float = 0.5,
    momentum: float | None = None,
    probe_momentum: float = 0.7,
    settle: bool = True,
    seed: int = 0,
    cache_bytes: int = CACHE_BYTES,
    monitor: Monitor = NULL_MONITOR,
) -> EPIEResult:
    """Reconstruct an object, and if asked the probe, from a scan.

    Parameters
    ----------
    data:
        The scan. Bad pixels keep the modelled modulus.
    probe:
        (modes, N, N) complex, scaled to counts and with the detector's offset in it, as
        `ptychopinn.data.scaling.probe_in_counts` returns it.
    passes:
        Times every pattern is used; 0 returns the start.
    start:
        (H, W) complex object to start from, in ``frame``; None is 1 everywhere.
    frame:
        Where the object lies; None is `frame_of` the scan.
    update_probe:
        Change the probe too. A shared shift of probe and object, and a shared ramp, cannot be told from the counts.
    batch_size:
        Patterns that act at once; None is `ptychopinn.solvers.updates.usual_batch_size`.
    alpha:
        ``a`` above at the start: 1 steps as the brightest point of the probe allows, 0 as every pixel's own light does.
    beta:
        Step of the probe.
    momentum, probe_momentum:
        Share of the last step that is taken again; 0 is none. The object's acts 8 times a pass, the probe's at every
        batch. None is 0.2 and 0.1 for each pass, at most 0.6: a short run has no time to swing back.
    settle:
        Let ``alpha`` rise to 1, the momentum of the object fall to 0 and the steps to 0.3 towards the last pass.
        With ``settle=False, alpha=1, momentum=0, probe_momentum=0`` this is plain ePIE.
    seed:
        Order of the patterns.
    cache_bytes:
        For amplitudes; where they do not fit they are made anew in every pass.
    monitor:
        Told each pass as "epie" with its residual; asked at every batch. Cancelled, the object so far is returned.

    Raises
    ------
    DataError
        If the scan is empty, or ``start`` or the probe do not have the shapes of frame and patterns.
    ConfigError
        If a parameter is out of its bounds.
    """
    frame = frame_of(data) if frame is None else frame
    _check(data, probe, start, frame, passes=passes, batch_size=batch_size, alpha=alpha, beta=beta)
    momentum = min(0.2 + 0.1 * passes, _MOST_MOMENTUM) if momentum is None else momentum
    if not (0 <= momentum < 1 and 0 <= probe_momentum < 1):
        raise ConfigError(f"Momenta of {momentum} and {probe_momentum} were given.", "Give 0 or more, less than 1.")
    size, count = data.N, len(data)
    batch_size = usual_batch_size(count, size) if batch_size is None else batch_size
    batches = -(-count // batch_size)
    every = max(1, batches // MOMENTA_A_PASS)
    box = Frame.around(data.positions, size)
    corners, fractions = split_positions(data.positions, size)
    obj = np.ones(box.shape, np.complex64)
    if start is not None:
        paste_object(obj, box, start.astype(np.complex64), frame)
    amplitudes = Amplitudes(data, cache_bytes)
    good = None if not data.bad_pixels.any() else np.fft.ifftshift(~data.bad_pixels).astype(np.float32)
    rng = np.random.default_rng(seed)
    residuals: list[float] = []
    with Crew() as crew:
        solution = Solution(obj, probe, corners - np.array(box.origin), fractions, crew)
        for done in range(passes):
            error = total = 0.0
            for number, chosen in enumerate(shuffled_batches(rng.permutation(count), batch_size)):
                if monitor.cancelled:
                    return _result(solution, frame, start, box, residuals)
                late = ((done + number / batches) / passes) ** 3 if settle else 0.0
                step = 1 - (1 - _SETTLED_STEP) * late
                missed, measured = solution.update(
                    chosen,
                    amplitudes,
                    good,
                    object_step=step,
                    alpha=max(alpha, 1e-3) ** (1 - late),
                    probe_step=beta * step if update_probe else 0.0,
                    probe_momentum=probe_momentum,
                )
                error, total = error + missed, total + measured
                if momentum > 0 and (number + 1) % every == 0:
                    solution.coast(momentum * (1 - late))
            residuals.append(float(np.sqrt(error / total)) if total > 0 else 0.0)
            monitor.report("epie", done + 1, passes, {"residual": residuals[-1]})
    return _result(solution, frame, start, box, residuals)


def refine_probe(
    data: ScanDataset, probe: ComplexArray, passes: int = 10, *, seed: int = 0, monitor: Monitor = NULL_MONITOR
) -> ComplexArray:
    """The probe that explains a scan better: `epie` from an empty object, the probe free from the first batch.

    Parameters
    ----------
    data, probe, passes, seed, monitor:
        As in `epie`.

    Returns
    -------
    (modes, N, N) complex64 with the energy of ``probe``.
    """
    return epie(data, probe, passes=passes, update_probe=True, seed=seed, monitor=monitor).probe


def _check(
    data: ScanDataset,
    probe: ComplexArray,
    start: ComplexArray | None,
    frame: Frame,
    *,
    passes: int,
    batch_size: int | None,
    alpha: float,
    beta: float,
) -> None:
    if len(data) == 0:
        raise DataError("The scan has no patterns.", "Give a scan with at least one.")
    if probe.ndim != 3 or probe.shape[1:] != (data.N, data.N):
        raise DataError(
            f"The probe has the shape {probe.shape}; (modes, {data.N}, {data.N}) is needed.", "Crop or pad the probe."
        )
    if not (np.abs(probe).max() > 0):
        raise DataError("The probe carries no energy.", "Give a probe that is not zero.")
    if start is not None and start.shape != frame.shape:
        raise DataError(
            f"The object to start from has the shape {start.shape}, its frame {frame.shape}.", "Give both alike."
        )
    if passes < 0 or (batch_size is not None and batch_size < 1) or not 0 <= alpha <= 1 or not beta >= 0:
        raise ConfigError(
            f"passes {passes}, batch_size {batch_size}, alpha {alpha} and beta {beta} were given.",
            "passes and beta are 0 or more, batch_size 1 or more, alpha between 0 and 1.",
        )


def shuffled_batches(order: IntArray, size: int) -> Iterator[IntArray]:
    """Indices of each batch, ascending, so that a memory-mapped scan is read forwards."""
    for low in range(0, len(order), size):
        yield np.sort(order[low : low + size])


def _overlap(at: tuple[int, int], inner: tuple[int, int], outer: tuple[int, int]) -> tuple[slice, slice]:
    """Pixels of an outer array where an inner one lies whose first pixel is at ``at``; empty if they do not meet."""
    spans = []
    for first, length, size in zip(at, inner, outer, strict=True):
        low = min(max(first, 0), size)
        spans.append(slice(low, max(min(first + length, size), low)))
    return spans[0], spans[1]


def paste_object(target: ComplexArray, target_frame: Frame, source: ComplexArray, source_frame: Frame) -> None:
    """Copy an object into another one of another frame, where they meet."""
    y, x = (source_frame.origin[k] - target_frame.origin[k] for k in (0, 1))
    rows, columns = _overlap((y, x), source_frame.shape, target_frame.shape)
    target[rows, columns] = source[rows.start - y : rows.stop - y, columns.start - x : columns.stop - x]


def _result(
    solution: Solution, frame: Frame, start: ComplexArray | None, box: Frame, residuals: list[float]
) -> EPIEResult:
    obj, probe = solution.result()
    found = np.ones(frame.shape, np.complex64) if start is None else start.astype(np.complex64)
    paste_object(found, frame, obj, box)
    return EPIEResult(found, frame, probe, tuple(residuals))
