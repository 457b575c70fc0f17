"""An endless stream of simulated training patterns of random objects, with one probe or random ones."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy.fft

from ptychopinn.config.simulation import ObjectKind
from ptychopinn.errors import ConfigError
from ptychopinn.forward import window_counts
from ptychopinn.simulate.noise import quick_poisson
from ptychopinn.simulate.objects import TRAINING_KINDS, compose, field_pair
from ptychopinn.simulate.textures import FIELDS
from ptychopinn.typing import BoolArray, ComplexArray, FloatArray, IntArray

_OBJECTS, _BATCHES, _PROBES = 0, 1, 2  # the families of random streams
_TRANSFORMS = 8  # of a square: transposed, flipped in y, flipped in x
_BATCHES_AHEAD = 8  # maximum distance of batches that threads make at the same time
_PROBES_BYTES = 1 << 27  # of a pool of probes
_MIN_PROBES, _MAX_PROBES = 16, 1024  # in a pool


class RandomPool:
    """A pool of random arrays, made by number, that is renewed one by one; thread-safe.

    A batch draws from ``size`` arrays; from a quarter of it at first, for a quick start. After each
    ``batches_an_array`` batches an array is added and the oldest is dropped.
    """

    def __init__(self, make: Callable[[int], ComplexArray], size: int, batches_an_array: int) -> None:
        self.size = size
        self.arrays: dict[int, ComplexArray] = {}
        self._make, self._batches_an_array = make, batches_an_array
        self._lock = threading.Lock()

    def numbers(self, step: int) -> range:
        """Consecutive numbers of the arrays that batch ``step`` draws from, at most ``size``."""
        stop = step // self._batches_an_array + max(1, self.size // 4)
        return range(max(0, stop - self.size), stop)

    def take(self, step: int) -> list[ComplexArray]:
        """The arrays of `numbers`; older ones that no nearby batch needs are dropped."""
        wanted, apart = self.numbers(step), -(-_BATCHES_AHEAD // self._batches_an_array)
        near = range(wanted.start - apart, wanted.stop + apart)
        with self._lock:
            self.arrays = {number: array for number, array in self.arrays.items() if number in near}
            for number in wanted:
                if number not in self.arrays:
                    self.arrays[number] = self._make(number)
            return [self.arrays[number] for number in wanted]


@dataclass(frozen=True, eq=False)
class WindowDraw:
    """Random choices for a batch of b patterns."""

    objects: IntArray  # (b,) int64, numbers of the objects
    corners: IntArray  # (b, 2) int64 (y, x) of the windows in them
    turns: IntArray  # (b,) int64: bit 0 transposes a window, then bit 1 flips it along y, bit 2 along x
    dose: FloatArray | None  # (b, 1, 1) float32, factors on the mean counts; None is 1
    probes: IntArray | None  # (b,) int64, numbers of the probes, if probes are random


class SimulatedBatch(NamedTuple):
    """Simulated patterns."""

    counts: FloatArray  # (b, N, N) float32, DC at ``[N//2, N//2]``, 0 at bad pixels
    patches: ComplexArray  # (b, n, n) complex64, the true patches in the probe's frame
    # (b, modes, N, N) complex64 in the scale of `ObjectStream.probe`; None if all patterns have that probe.
    probes: ComplexArray | None


@dataclass(frozen=True)
class ObjectStreamOptions:
    """How an `ObjectStream` draws objects, doses and probes."""

    kinds: Sequence[ObjectKind | str] = TRAINING_KINDS
    object_size_px: int | None = None  # width of an object; None is 6 N, but at least 256 and at most 768
    pool_size: int = 32  # objects that patches are cut from at a time
    batches_an_object: int = 32  # one object is replaced after so many batches; the more, the cheaper and the less new
    # Every pattern's dose is ``mean_counts`` times a factor between these. The density of its logarithm rises from 0 at
    # the lowest, since dim patterns teach little. Its counts are divided by the factor, so that only the noise changes.
    dose_range: tuple[float, float] = (1.0, 1.0)
    # Bounds of an object's random contrast: its amplitude runs over ``(1 - c) ... 1`` before it is normalised, its
    # phase over a range of the given width.
    amplitude_contrast: tuple[float, float] = (0.0, 0.9)
    phase_span_rad: tuple[float, float] = (0.1, 3.2)
    # Draws a probe, (modes, N, N) complex, from random numbers: then every pattern has a probe of its own, out of a
    # pool that is renewed by one a batch. It is scaled as the probe is, which it is drawn instead of.
    draw_probe: Callable[[np.random.Generator], ComplexArray] | None = None


class ObjectStream:
    """An endless stream of simulated counts and true patches; thread-safe.

    Patches are cut at whole pixels from a pool of random objects, and transposed and flipped at random. The probe gives
    their diffraction patterns, from which Poisson counts are drawn. An object has mean ``|O|^2 = 1``; its kind and its
    contrast are random. Batch k depends only on the seed, k and its size, so a resumed training gets the same batches.

    Parameters
    ----------
    probe:
        (modes, N, N) complex, with the detector's offset.
    mean_counts:
        Mean counts of a pattern where ``|O|^2`` is 1. The probe is scaled to this energy on the good pixels, as by
        `ptychopinn.data.scaling.fit_scaling`.
    bad_pixels:
        (N, N) bool; their counts are 0.
    patch_size:
        n: the patch is the centre of the window, ``window[(N - n) // 2 : (N - n) // 2 + n]`` in y and x.

    Raises
    ------
    ConfigError
        If a parameter is out of its bounds.
    """

    def __init__(
        self,
        probe: ComplexArray,
        mean_counts: float,
        bad_pixels: BoolArray | None = None,
        seed: int = 0,
        patch_size: int | None = None,
        options: ObjectStreamOptions = ObjectStreamOptions(),
    ) -> None:
        size = probe.shape[-1]
        self.patch_size = size // 2 if patch_size is None else patch_size
        self._kinds = tuple(ObjectKind(kind) for kind in options.kinds)
        wide = options.object_size_px
        self.object_size_px = min(max(6 * size, 256), 768) if wide is None else wide
        if probe.ndim != 3 or probe.shape[1] != size or not 1 <= self.patch_size <= size <= self.object_size_px:
            raise ConfigError(
                f"A probe of shape {probe.shape}, patches of {self.patch_size} px and objects of "
                f"{self.object_size_px} px were given.",
                "Give a probe (modes, N, N), patches no wider than N and objects no narrower.",
            )
        if not self._kinds or not set(self._kinds) <= set(FIELDS):
            raise ConfigError(
                f"kinds is {[str(k) for k in self._kinds]}.", f"Give one or more of {[str(k) for k in FIELDS]}."
            )
        if not (mean_counts > 0 and options.pool_size >= 1 and options.batches_an_object >= 1):
            raise ConfigError(
                f"mean_counts {mean_counts}, pool_size {options.pool_size} and batches_an_object "
                f"{options.batches_an_object} were given.",
                "All of them must be positive.",
            )
        if not 0 < options.dose_range[0] <= options.dose_range[1]:
            raise ConfigError(f"dose_range is {options.dose_range}.", "Give two positive factors, the smaller first.")
        self.bad_pixels = np.zeros((size, size), bool) if bad_pixels is None else np.asarray(bad_pixels, bool)
        self.mean_counts = mean_counts
        self.seed, self._options = seed, options
        self.probe = self._in_counts(probe)  # (modes, N, N) complex64 of the energy ``mean_counts``
        self.objects = RandomPool(self._make, options.pool_size, options.batches_an_object)
        self.probes: RandomPool | None = None
        if options.draw_probe is not None:
            fitting = _PROBES_BYTES // self.probe.nbytes
            self.probes = RandomPool(self._make_probe, min(max(fitting, _MIN_PROBES), _MAX_PROBES), 1)

    def batch(self, step: int, size: int) -> SimulatedBatch:
        """Batch ``step`` of ``size`` patterns, with random access. Raises ConfigError if ``step`` is negative."""
        drawn, rng = self.draw(step, size)
        windows = self._cut(drawn, step)
        n, width = self.patch_size, self.probe.shape[-1]
        centre = slice((width - n) // 2, (width - n) // 2 + n)
        patches = windows[:, centre, centre].copy()
        probes = None
        if self.probes is not None and drawn.probes is not None:
            pool, first = self.probes.take(step), self.probes.numbers(step).start
            chosen = [pool[number - first] for number in drawn.probes.tolist()]
            probes = np.array(chosen, np.complex64).reshape(size, *self.probe.shape)
        modes = self.probe if probes is None else probes.swapaxes(0, 1)
        return SimulatedBatch(self._count(windows, modes, drawn.dose, rng), patches, probes)

    def draw(self, step: int, size: int) -> tuple[WindowDraw, np.random.Generator]:
        """The random choices of a batch, and the generator of its noise."""
        if step < 0:
            raise ConfigError(f"Batch {step} of a stream was asked for.", "Batches count from 0.")
        rng = self._random(_BATCHES, step)
        width, (low, high) = self.probe.shape[-1], self._options.dose_range
        numbers = self.objects.numbers(step)
        objects = rng.integers(len(numbers), size=size) + numbers.start
        corners = rng.integers(self.object_size_px - width + 1, size=(size, 2))
        turns = rng.integers(_TRANSFORMS, size=size)
        dose = None
        if not low == high == 1:
            share = np.sqrt(rng.random((size, 1, 1)))
            dose = np.exp(math.log(low) + share * math.log(high / low)).astype(np.float32)
        probes = None
        if self.probes is not None:
            drawn_from = self.probes.numbers(step)
            # Each once before one is drawn again.
            rounds = [rng.permutation(len(drawn_from)) for _ in range(-(-size // len(drawn_from)))]
            probes = np.concatenate([np.zeros(0, np.int64), *rounds])[:size] + drawn_from.start
        return WindowDraw(objects, corners, turns, dose, probes), rng

    def _random(self, family: int, number: int) -> np.random.Generator:
        return np.random.Generator(np.random.SFC64(np.random.SeedSequence([self.seed, family, number])))

    def _in_counts(self, probe: ComplexArray) -> ComplexArray:
        """A (modes, N, N) probe with the energy ``mean_counts`` on the good pixels, complex64."""
        pattern = (np.abs(scipy.fft.fftshift(scipy.fft.fft2(probe, norm="ortho"), axes=(1, 2))) ** 2).sum(axis=0)
        seen = float(pattern[~self.bad_pixels].sum(dtype=np.float64))
        if not seen > 0 or not math.isfinite(seen):
            raise ConfigError("The probe carries no energy.", "Give a probe that is not zero.")
        scaled: ComplexArray = (probe * math.sqrt(self.mean_counts / seen)).astype(np.complex64)
        return scaled

    def _count(
        self, windows: ComplexArray, modes: ComplexArray, dose: FloatArray | None, rng: np.random.Generator
    ) -> FloatArray:
        """(b, N, N) float32 counts of (b, N, N) windows; ``modes`` is (modes, N, N) or (modes, b, N, N)."""
        mean = np.fft.fftshift(window_counts(windows, modes), axes=(1, 2))
        counts = quick_poisson(mean, rng) if dose is None else quick_poisson(mean * dose, rng) / dose
        counts[:, self.bad_pixels] = 0
        return counts

    def _cut(self, drawn: WindowDraw, step: int) -> ComplexArray:
        """(b, N, N) complex64 windows."""
        size, objects = self.probe.shape[-1], self.objects.take(step)
        which = (drawn.objects - self.objects.numbers(step).start).tolist()
        windows = np.empty((len(which), size, size), np.complex64)
        for window, number, (y, x), turn in zip(
            windows, which, drawn.corners.tolist(), drawn.turns.tolist(), strict=True
        ):
            view = objects[number][y : y + size, x : x + size]
            if turn & 1:
                view = view.T
            window[:] = view[:: -1 if turn & 2 else 1, :: -1 if turn & 4 else 1]
        return windows

    def _make(self, number: int) -> ComplexArray:
        """Object ``number`` of the stream, (S, S) complex64, mean ``|O|^2`` 1."""
        rng = self._random(_OBJECTS, number)
        kind = self._kinds[rng.integers(len(self._kinds))]
        options = self._options
        contrast, span = rng.uniform(*options.amplitude_contrast), rng.uniform(*options.phase_span_rad)
        fields = field_pair(kind, (self.object_size_px, self.object_size_px), rng)
        obj = compose(*fields, (1 - contrast, 1.0), (-span / 2, span / 2))
        obj /= np.float32(math.sqrt(float(np.mean(obj.real**2 + obj.imag**2))))
        return obj

    def _make_probe(self, number: int) -> ComplexArray:
        """Probe ``number`` of the stream, in counts."""
        assert self._options.draw_probe is not None  # there is a pool of probes only with it
        return self._in_counts(self._options.draw_probe(self._random(_PROBES, number)))
