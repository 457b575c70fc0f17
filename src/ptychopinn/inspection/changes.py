"""Changes of a scan that may mend it: exchanged and negated axes, another scale, another order, another probe."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from ptychopinn.typing import AnyArray, ComplexArray, FloatArray


@dataclass(frozen=True)
class Orientation:
    """Exchange the axes y and x, then negate axes."""

    exchange: bool = False
    negate_y: bool = False
    negate_x: bool = False

    def of_positions(self, positions: FloatArray) -> FloatArray:
        """Positions (n, 2) (y, x), changed about their mean."""
        middle = positions.mean(axis=0)
        away = positions - middle
        if self.exchange:
            away = away[:, ::-1]
        changed: FloatArray = middle + away * np.where([self.negate_y, self.negate_x], -1.0, 1.0)
        return changed

    def of_patterns(self, patterns: AnyArray) -> AnyArray:
        """Patterns (..., N, N) with DC at [N//2, N//2], which stays there."""
        if self.exchange:
            patterns = np.swapaxes(patterns, -1, -2)
        for axis, negate in ((-2, self.negate_y), (-1, self.negate_x)):
            if negate:
                size = patterns.shape[axis]
                patterns = np.roll(np.flip(patterns, axis), 1 - size % 2, axis)  # pixel k goes to -k
        return np.ascontiguousarray(patterns)


AS_GIVEN = Orientation()
ORIENTATIONS = tuple(Orientation(*which) for which in product((False, True), repeat=3))
"""All eight, the given one first."""


@dataclass(frozen=True)
class Change:
    """A change of a scan."""

    positions: Orientation = AS_GIVEN
    patterns: Orientation = AS_GIVEN
    scale: float = 1.0  # factor of the positions about their mean
    offset: int = 0  # pattern j has the position of pattern j - offset
    # The probe is the complex conjugate, or has its middle in the corner of the array.
    conjugate_probe: bool = False
    probe_from_corner: bool = False

    @property
    def is_none(self) -> bool:
        """Whether nothing changes."""
        return self == Change()

    @property
    def is_orientation(self) -> bool:
        """Whether only the orientation of positions differs, or nothing."""
        return self == Change(positions=self.positions)

    def of_positions(self, positions: FloatArray) -> FloatArray:
        """All positions of a scan, (n, 2), changed."""
        middle = positions.mean(axis=0)
        changed: FloatArray = middle + self.scale * (self.positions.of_positions(positions) - middle)
        return np.roll(changed, self.offset, axis=0)

    def of_probe(self, probe: ComplexArray) -> ComplexArray:
        """The probe, (modes, N, N), changed."""
        if self.conjugate_probe:
            probe = probe.conj()
        return np.fft.fftshift(probe, axes=(-2, -1)) if self.probe_from_corner else probe

    def with_scale(self, scale: float) -> Change:
        """The same with another scale."""
        return replace(self, scale=scale)

    @property
    def flags(self) -> tuple[str, ...]:
        """Flags of ``ptychopinn convert`` that make this change; none for patterns, which it turns with their probe."""
        found = [
            ("--swap-axes", self.positions.exchange),
            ("--negate-y", self.positions.negate_y),
            ("--negate-x", self.positions.negate_x),
            (f"--scale-positions {self.scale:.3g}", self.scale != 1),
            (f"--roll-positions {self.offset}", self.offset != 0),
            ("--conjugate-probe", self.conjugate_probe),
            ("--probe-from-corner", self.probe_from_corner),
        ]
        return tuple(flag for flag, there in found if there)

    @property
    def remedy(self) -> str:
        """What the user may do."""
        turned = [
            ("--transpose", self.patterns.exchange),
            ("--flip-y", self.patterns.negate_y),
            ("--flip-x", self.patterns.negate_x),
            ("--no-turn-probe", self.patterns != AS_GIVEN),
        ]
        flags = [*self.flags, *(flag for flag, there in turned if there)]
        return f"ptychopinn convert SCAN -o NEW.npz {' '.join(flags)}" if flags else ""

    def __str__(self) -> str:
        said = [f"{what} {words}" for what, words in self._oriented() if words]
        if self.scale != 1:
            said.append(f"positions scaled by {self.scale:.3g}")
        if self.offset:
            said.append(f"positions moved by {self.offset:+d} in the list")
        if self.conjugate_probe:
            said.append("complex conjugate of the probe")
        if self.probe_from_corner:
            said.append("probe moved from the corner")
        return ", ".join(said) or "as given"

    def _oriented(self) -> list[tuple[str, str]]:
        positions, patterns = self.positions, self.patterns
        axes = {(False, False): "", (True, False): "y", (False, True): "x", (True, True): "y and x"}
        found = []
        for what, one, verb in (("positions with", positions, "negated"), ("patterns with", patterns, "reversed")):
            words = ["axes exchanged"] if one.exchange else []
            if named := axes[one.negate_y, one.negate_x]:
                words.append(f"{named} {verb}")
            found.append((what, " and ".join(words)))
        return found
