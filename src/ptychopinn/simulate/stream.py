"""An endless stream of training patterns: ever new objects under one probe."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence

import numpy as np
import scipy.fft

from ptychopinn.config.simulation import ObjectKind
from ptychopinn.errors import ConfigError
from ptychopinn.forward import detector_ramp
from ptychopinn.simulate.fields import FIELDS
from ptychopinn.simulate.noise import quick_poisson
from ptychopinn.simulate.objects import TRAINING_KINDS, compose, field_pair
from ptychopinn.typing import BoolArray, ComplexArray, FloatArray

_OBJECTS, _BATCHES = 0, 1  # the two families of random streams
_TRANSFORMS = 8  # of a square: transposed or not, flipped in y or not, flipped in x or not


class _Pool:
    """The objects that a stream and its copies cut patches from, made once for all; any thread may take some."""

    def __init__(self) -> None:
        self.objects: dict[int, ComplexArray] = {}
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[_Pool], tuple[()]]:
        return _Pool, ()  # another process makes its own

    def take(self, wanted: range, make: Callable[[int], ComplexArray]) -> list[ComplexArray]:
        """The objects of these numbers; what is farther than one from them is dropped."""
        near = range(wanted.start - 1, wanted.stop + 1)  # threads are not all at the same batch
        with self._lock:
            self.objects = {number: obj for number, obj in self.objects.items() if number in near}
            for number in wanted:
                if number not in self.objects:
                    self.objects[number] = make(number)
            return [self.objects[number] for number in wanted]


class ObjectStream:
    """Counts and true patches, simulated without end.

    Patches are cut at whole pixels from a pool of random objects, turned and flipped at random, lit by the probe, and
    counted. An object has mean ``|O|^2 = 1``; its kind and its contrast, from hardly seen to strong, are random.
    Batch k depends only on the seed, k and its size: a training that resumes at k sees what it would have seen. A copy
    (`copy.copy`) has its own place and probe and shares the objects; copies may be used in threads of their own.

    Parameters
    ----------
    probe:
        (modes, N, N) complex, with the detector's offset in it.
    mean_counts:
        Mean counts of a pattern where ``|O|^2`` is 1: the probe is scaled to have that energy on the good pixels, as
        `ptychopinn.data.scaling.fit_scaling` does.
    bad_pixels:
        (N, N) bool; they count nothing.
    seed:
        Of everything random.
    patch_size:
        n: the patch is the centre of the window, ``window[(N - n) // 2 : (N - n) // 2 + n]`` in y and x.
    kinds:
        Kinds of objects drawn from.
    object_size_px:
        Width of an object; None is 6 N, but at least 256 and at most 768.
    pool_size:
        Objects that patches are cut from at a time.
    batches_an_object:
        One object is replaced after so many batches; the more, the cheaper and the less new.
    offset_jitter_px:
        Deviation of a random offset of every pattern on the detector, detector pixels.
    dose_range:
        Every pattern's dose is ``mean_counts`` times a factor between these, drawn evenly in its logarithm. Its counts
        are divided by the factor, so that only the noise changes.
    amplitude_contrast, phase_span_rad:
        Bounds of an object's random contrast: its amplitude runs over ``(1 - c) ... 1`` before it is normalised, its
        phase over a range of the given width.

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
        kinds: Sequence[ObjectKind | str] = TRAINING_KINDS,
        *,
        object_size_px: int | None = None,
        pool_size: int = 32,
        batches_an_object: int = 32,
        offset_jitter_px: float = 0.0,
        dose_range: tuple[float, float] = (1.0, 1.0),
        amplitude_contrast: tuple[float, float] = (0.0, 0.9),
        phase_span_rad: tuple[float, float] = (0.1, 3.2),
    ) -> None:
        size = probe.shape[-1]
        self._patch_size = size // 2 if patch_size is None else patch_size
        self._kinds = tuple(ObjectKind(kind) for kind in kinds)
        self._object_size = min(max(6 * size, 256), 768) if object_size_px is None else object_size_px
        if probe.ndim != 3 or probe.shape[1] != size or not 1 <= self._patch_size <= size <= self._object_size:
            raise ConfigError(
                f"A probe of shape {probe.shape}, patches of {self._patch_size} px and objects of "
                f"{self._object_size} px were given.",
                "Give a probe (modes, N, N), patches no wider than N and objects no narrower.",
            )
        if not self._kinds or not set(self._kinds) <= set(FIELDS):
            raise ConfigError(
                f"kinds is {[str(k) for k in self._kinds]}.", f"Give one or more of {[str(k) for k in FIELDS]}."
            )
        if not (mean_counts > 0 and pool_size >= 1 and batches_an_object >= 1 and offset_jitter_px >= 0):
            raise ConfigError(
                f"mean_counts {mean_counts}, pool_size {pool_size}, batches_an_object {batches_an_object} and "
                f"offset_jitter_px {offset_jitter_px} were given.",
                "The first three must be positive, the last not negative.",
            )
        if not 0 < dose_range[0] <= dose_range[1]:
            raise ConfigError(f"dose_range is {dose_range}.", "Give two positive factors, the smaller first.")
        self._bad_pixels = np.zeros((size, size), bool) if bad_pixels is None else np.asarray(bad_pixels, bool)
        self._mean_counts = mean_counts
        self._seed = seed
        self._pool_size = pool_size
        self._batches_an_object = batches_an_object
        self._offset_jitter_px = offset_jitter_px
        self._dose_range = dose_range
        self._amplitude_contrast = amplitude_contrast
        self._phase_span_rad = phase_span_rad
        self._pool = _Pool()
        self._step = 0
        self.set_probe(probe)

    @property
    def step(self) -> int:
        """Number of the batch that comes next."""
        return self._step

    @property
    def probe(self) -> ComplexArray:
        """(modes, N, N) complex64, scaled to ``mean_counts``."""
        return self._probe

    @property
    def mean_counts(self) -> float:
        """Mean counts of a pattern where ``|O|^2`` is 1."""
        return self._mean_counts

    def at(self, step: int) -> ObjectStream:
        """Go to a batch, forwards or back, and return this stream; nothing is made on the way."""
        if step < 0:
            raise ConfigError(f"Batch {step} of a stream was asked for.", "Batches count from 0.")
        self._step = step
        return self

    def set_probe(self, probe: ComplexArray) -> None:
        """Go on with another probe, (modes, N, N) complex of the same N, as training refines it."""
        pattern = (np.abs(scipy.fft.fftshift(scipy.fft.fft2(probe, norm="ortho"), axes=(1, 2))) ** 2).sum(axis=0)
        seen = float(pattern[~self._bad_pixels].sum(dtype=np.float64))
        if not seen > 0 or not math.isfinite(seen):
            raise ConfigError("The probe carries no energy.", "Give a probe that is not zero.")
        self._probe: ComplexArray = (probe * math.sqrt(self._mean_counts / seen)).astype(np.complex64)

    def batch(self, size: int) -> tuple[FloatArray, ComplexArray]:
        """The next batch.

        Parameters
        ----------
        size:
            b, patterns in it.

        Returns
        -------
        counts: (b, N, N) float32, DC at ``[N//2, N//2]``, 0 at bad pixels.
        patches: (b, n, n) complex64, the true patches in the probe's frame.
        """
        rng = np.random.Generator(np.random.SFC64(np.random.SeedSequence([self._seed, _BATCHES, self._step])))
        windows = self._cut(self._objects(), size, rng)
        self._step += 1
        n, width = self._patch_size, self._probe.shape[-1]
        centre = slice((width - n) // 2, (width - n) // 2 + n)
        patches = windows[:, centre, centre].copy()
        return self._count(windows, rng), patches

    def _count(self, windows: ComplexArray, rng: np.random.Generator) -> FloatArray:
        """(b, N, N) float32 counts of (b, N, N) windows."""
        if self._offset_jitter_px > 0:
            offsets = rng.normal(0, self._offset_jitter_px, (len(windows), 2))
            windows = windows * _ramps(offsets, windows.shape[-1])
        mean = np.zeros(windows.shape, np.float32)
        for mode in self._probe:  # modes one by one: memory is that of one
            field = scipy.fft.fft2(mode * windows, norm="ortho", overwrite_x=True, workers=1)
            mean += field.real**2
            mean += field.imag**2
        mean = np.fft.fftshift(mean, axes=(1, 2))
        low, high = self._dose_range
        if low == high == 1:
            counts = quick_poisson(mean, rng)
        else:
            dose = np.exp(rng.uniform(math.log(low), math.log(high), (len(windows), 1, 1))).astype(np.float32)
            counts = quick_poisson(mean * dose, rng) / dose
        counts[:, self._bad_pixels] = 0
        return counts

    def _cut(self, objects: list[ComplexArray], count: int, rng: np.random.Generator) -> ComplexArray:
        """(count, N, N) complex64 windows of random objects, places and turns."""
        size = self._probe.shape[-1]
        which = rng.integers(len(objects), size=count).tolist()
        corners = rng.integers(self._object_size - size + 1, size=(count, 2)).tolist()
        turns = rng.integers(_TRANSFORMS, size=count).tolist()
        windows = np.empty((count, size, size), np.complex64)
        for window, number, (y, x), turn in zip(windows, which, corners, turns, strict=True):
            view = objects[number][y : y + size, x : x + size]
            if turn & 1:
                view = view.T
            window[:] = view[:: -1 if turn & 2 else 1, :: -1 if turn & 4 else 1]
        return windows

    def _objects(self) -> list[ComplexArray]:
        """The pool of this step: the newest objects; a quarter of the pool at first, so that the start is quick."""
        newest = self._step // self._batches_an_object + max(1, self._pool_size // 4)
        return self._pool.take(range(max(0, newest - self._pool_size), newest), self._make)

    def _make(self, number: int) -> ComplexArray:
        """Object ``number`` of the stream, (S, S) complex64, mean ``|O|^2`` 1."""
        rng = np.random.Generator(np.random.SFC64(np.random.SeedSequence([self._seed, _OBJECTS, number])))
        kind = self._kinds[rng.integers(len(self._kinds))]
        contrast, span = rng.uniform(*self._amplitude_contrast), rng.uniform(*self._phase_span_rad)
        fields = field_pair(kind, (self._object_size, self._object_size), rng)
        obj = compose(*fields, (1 - contrast, 1.0), (-span / 2, span / 2))
        obj /= np.float32(math.sqrt(float(np.mean(obj.real**2 + obj.imag**2))))
        return obj


def _ramps(offsets_px: FloatArray, size: int) -> ComplexArray:
    """(b, N, N) complex64: `ptychopinn.forward.detector_ramp` of (b, 2) offsets, made from its two factors."""
    unit = detector_ramp(np.array([1.0, 0.0]), size)[:, 0]
    angle = np.angle(unit)
    factors = np.exp(1j * offsets_px[:, :, None] * angle).astype(np.complex64)
    ramps: ComplexArray = factors[:, 0, :, None] * factors[:, 1, None, :]
    return ramps
