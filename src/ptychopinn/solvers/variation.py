"""Free modes of a probe that varies: their steps, the weights of the patterns, and their gauge.

In a batch, the modes take the step that the probe takes, with the gradient of each pattern times its weight. After a
pass the weights of every pattern take a Gauss-Newton step, and both are brought into their gauge. Modes start at 0 with
random weights: the first passes are those of a randomised singular value decomposition of what the probe of each
pattern lacks, which never needs memory for these probes. The gauge:

- the weights of a mode have the mean 0 and the mean square 1, and those of two modes no correlation;
- the modes are orthogonal to each other (in the real product ``Re <V_k, V_l>``, because weights are real), the
  strongest first;
- they are orthogonal to the probe: what is along it is the flux of a pattern, or a phase that changes nothing. If
  positions are free, they are also orthogonal to the slopes of the probe, which are its moves.

Sources: Odstrcil et al., Opt. Express 24, 8360 (2016); for the weights Odstrcil, Menzel & Guizar-Sicairos, Opt. Express
26, 3108 (2018), eq. 23.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ptychopinn.arrays import Array, ArrayLibrary
from ptychopinn.exposure import Exposure
from ptychopinn.probe_variation import ProbeVariation
from ptychopinn.solvers.options import PassOptions
from ptychopinn.solvers.probe_state import FreeModes
from ptychopinn.typing import FloatArray, IntArray

_DAMPING = 0.05  # of the weights' equations, relative to their mean over the scan
_STEP = 2.0  # of the weights, in Gauss-Newton steps: object and modes hide a part of what a weight is off
_LEAST = 1e-9  # smallest variance of weights, relative to the largest
_TINY = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True, eq=False)
class VariationBatch:
    """The modes as the gradients of a batch need them."""

    weights: Array  # (b, K) float32
    spectra: Array  # (K, N N) complex64
    products: Array  # (N N, K K) float32, real parts of the products of two modes
    exposure: Exposure

    def part(self, some: slice) -> VariationBatch:
        """Those of some patterns."""
        return VariationBatch(self.weights[some, ...], self.spectra, self.products, self.exposure)


def variation_gradients(
    spectra: Array, light: Array, batch: VariationBatch, library: ArrayLibrary
) -> tuple[Array, list[Array]]:
    """Gradient of the modes, and the normal equations of the weights.

    The equations leave out that modes are shifted by a fraction of a pixel in their window.

    Parameters
    ----------
    spectra:
        (b, places * modes, N, N) complex64 gradients of the probe of each pattern, from `probe_gradients`.
    light:
        (b, N, N) float32 power of the object.

    Returns
    -------
    Spectrum of the gradient, (K, N, N), summed over patterns; (b, K K) and (b, K) float64 equations.
    """
    xp, size = library.xp, spectra.shape[-1]
    main = xp.reshape(batch.exposure.gather_first(spectra), (-1, size * size))
    weights = library.cast(batch.weights, "complex64")
    gradient = xp.reshape(library.matmul(xp.matrix_transpose(weights), main), (-1, size, size))
    right = xp.real(library.matmul(main, xp.conj(xp.matrix_transpose(batch.spectra)))) / size**2
    normal = library.matmul(xp.reshape(light, (-1, size * size)), batch.products)
    return gradient, [library.cast(normal, "float64"), library.cast(right, "float64")]


class VariationState:
    """Modes of a varying probe, with their momentum, and the weights of the used patterns.

    Parameters
    ----------
    given:
        What passes start from; None for a probe that did not vary yet.
    used:
        (k,) int64: the patterns that passes use.
    size:
        N.
    options:
        Of the passes. Modes that they ask for and that are not given start at 0, with random weights. The weights may
        change where the modes stay.

    Attributes
    ----------
    weights:
        (k, K) float32, on the host.
    """

    def __init__(
        self,
        given: ProbeVariation | None,
        used: IntArray,
        size: int,
        options: PassOptions,
        library: ArrayLibrary,
    ) -> None:
        self._library, self._given, self._used = library, given, used
        count = options.update_variation
        self._free = options.update_probe and count > 0
        self._ran_away = np.zeros(len(used), bool)
        known = 0 if given is None else given.weights.shape[1]
        weights = [] if given is None else [given.weights[used]]
        modes = [] if given is None else [library.cast(given.modes, "complex64")]
        if count > known:
            rng = np.random.default_rng(options.seed)
            weights.append(rng.normal(size=(len(used), count - known)).astype(np.float32))
            modes.append(library.zeros((count - known, size, size), "complex64"))
        self.weights: FloatArray = np.concatenate(weights, axis=1)
        self._state = FreeModes(library.xp.concat(modes), options.schedule.probe_momentum, library)

    @property
    def arrays(self) -> list[Array]:
        """The arrays that steps read and change."""
        return self._state.arrays

    @property
    def modes(self) -> Array:
        """(K, N, N) complex64, current value."""
        return self._state.modes

    @property
    def runaways(self) -> int:
        """Number of patterns whose weights ran away and were set to 0."""
        return int(self._ran_away.sum())

    @property
    def energy(self) -> Array:
        """Mean energy that the variation adds to a pattern."""
        xp = self._library.xp
        squares = self._library.from_host((self.weights**2).mean(axis=0))
        return xp.sum(squares * xp.sum(xp.abs(self.modes) ** 2, axis=(1, 2)))

    def of_all(self, count: int) -> ProbeVariation:
        """Modes, and weights of all ``count`` patterns: of those that are not used 0, or what they were given."""
        weights = np.zeros((count, self.weights.shape[1]), np.float32)
        if not self._free and self._given is not None:
            weights[:] = self._given.weights
        weights[self._used] = self.weights
        return ProbeVariation(self._library.xp.asarray(self.modes, copy=True), weights)

    def batch(self, weights: Array, exposure: Exposure) -> VariationBatch:
        """What gradients of patterns with these (b, K) weights need."""
        library, xp, size = self._library, self._library.xp, self.modes.shape[-1]
        spectra = library.fft2(xp.asarray(self.modes, copy=True))
        products = xp.real(xp.conj(self.modes)[:, None, ...] * self.modes[None, ...])
        products = xp.matrix_transpose(xp.reshape(products, (-1, size * size)))
        return VariationBatch(weights, xp.reshape(spectra, (-1, size * size)), products, exposure)

    def damping(self, members: IntArray) -> FloatArray:
        """(K + 1, K + 1) float32: what multiplies the gradients of probe and modes in a batch of patterns.

        Weights that are large, or alike, in a batch would make its step too long: the curvature along (1, w) is the
        mean square of that. It is 1 over the whole scan, so only what is above 1 is divided by.
        """
        rows = np.concatenate([np.ones((len(members), 1)), self.weights[members]], axis=1)
        curvature, axes = np.linalg.eigh(rows.T @ rows / len(members))
        damping: FloatArray = (axes / np.maximum(curvature, 1.0) @ axes.T).astype(np.float32)
        return damping

    def step(self, spectrum: Array, light: Array, step: float | Array) -> None:
        """Update the modes with the gradient of a batch, (K, N, N) spectrum, and the (N, N) power of its object."""
        self._state.step(spectrum, light, step)

    def end_pass(self, rows: FloatArray, probe: Array, *, moves: bool) -> Array:
        """Fit the weights, and bring them and the modes into their gauge.

        Parameters
        ----------
        rows:
            (k, K K + K or more) equations of the weights.
        probe:
            (N, N) complex64, first mode of the probe.
        moves:
            Whether positions are free.

        Returns
        -------
        What the mean of the weights adds to the probe, (N, N).
        """
        count = self.modes.shape[0]
        unchanged = self._library.xp.zeros_like(probe)
        if not np.isfinite(rows).all():
            return unchanged  # the passes diverged
        normal, right = rows[:, : count**2].reshape(-1, count, count), rows[:, count**2 : count**2 + count]
        self._fit_weights(normal, right, float(self._library.xp.sum(self._library.xp.abs(probe) ** 2)))
        return self.settle(probe, without_moves=moves)

    def _fit_weights(self, normal: FloatArray, right: FloatArray, probe_energy: float) -> None:
        """Move the weights by (k, K, K) and (k, K) equations; those that run away are set to 0.

        Weights run away if the variation of a pattern has more energy than the probe.
        """
        damping = _DAMPING * np.trace(normal.mean(axis=0)) / self.modes.shape[0] + _TINY
        steps = np.linalg.solve(normal + damping * np.eye(self.modes.shape[0]), right[..., None])[..., 0]
        weights = self.weights + _STEP * steps
        overlaps = _overlaps(self.modes, self.modes, self._library)
        away = ~(np.einsum("ja,ab,jb->j", weights, overlaps, weights) < probe_energy)
        weights[away] = 0
        self._ran_away |= away
        self.weights = weights.astype(np.float32)

    def settle(self, probe: Array, *, without_moves: bool) -> Array:
        """Bring free modes and weights into their gauge.

        Returns what the mean of the weights adds to the (N, N) probe.
        """
        library = self._library
        if not self._free:
            return library.xp.zeros_like(probe)
        mean = self.weights.mean(axis=0)
        weights = self.weights.astype(np.float64) - mean
        added = _mixed(mean[None].astype(np.float64), self.modes, library)[0, ...]
        fixed = _gauge_basis(probe + added, library, without_moves=without_moves)
        inverse = np.linalg.pinv(_overlaps(fixed, fixed, library))

        def without_fixed(modes: Array) -> Array:
            return modes - _mixed(_overlaps(modes, fixed, library) @ inverse, fixed, library)

        self._state.map(without_fixed)
        variances, axes = np.linalg.eigh(weights.T @ weights / len(weights))
        scales = np.sqrt(np.maximum(variances, _LEAST * max(float(variances.max()), _TINY)))
        whiten = axes * scales  # weights = white whiten^T
        power, turn = np.linalg.eigh(whiten.T @ _overlaps(self.modes, self.modes, library) @ whiten)
        turn = turn[:, np.argsort(power)[::-1]]
        change = (whiten @ turn).T  # of the modes; the weights change by its inverse
        self.weights = (weights @ (axes / scales) @ turn).astype(np.float32)
        self._state.map(lambda modes: _mixed(change, modes, library))
        return added


def _overlaps(a: Array, b: Array, library: ArrayLibrary) -> FloatArray:
    """(k, l) float64 on the host: real parts of the inner products of (k, N, N) with (l, N, N) complex64."""
    xp = library.xp
    flat = [xp.reshape(one, (one.shape[0], -1)) for one in (a, b)]
    product = xp.real(library.matmul(xp.conj(flat[0]), xp.matrix_transpose(flat[1])))
    return library.to_host(product).astype(np.float64)


def _mixed(mixing: FloatArray, modes: Array, library: ArrayLibrary) -> Array:
    """(l, k) real mixing of (k, N, N) complex64 modes to (l, N, N)."""
    xp = library.xp
    flat = library.matmul(library.from_host(mixing.astype(np.complex64)), xp.reshape(modes, (modes.shape[0], -1)))
    return xp.reshape(flat, (-1, *modes.shape[1:]))


def _gauge_basis(probe: Array, library: ArrayLibrary, *, without_moves: bool) -> Array:
    """(k, N, N) complex64: what a variation must not contain of an (N, N) probe."""
    xp = library.xp
    known = [probe, 1j * probe]
    if without_moves:
        slope = 2j * np.pi * library.frequencies(probe.shape[-1])
        spectrum = library.fft2(xp.asarray(probe[None, ...], copy=True))
        ramps = (library.cast(along, "complex64") for along in (slope[:, None], slope[None, :]))
        known += [library.ifft2(spectrum * ramp)[0, ...] for ramp in ramps]
    return xp.stack(known)
