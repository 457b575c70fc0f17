"""Tests of the forward model of a backend against the core's."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import numpy as np
import pytest

from ptychopinn.forward import expected_counts
from ptychopinn.simulate import simulate_object, simulate_probe
from ptychopinn.testing.backend import Tolerances
from ptychopinn.typing import ComplexArray, FloatArray


class ForwardConformance:
    """Parity with `ptychopinn.forward`; a subclass supplies `expected_counts`."""

    tolerances: ClassVar[Tolerances] = Tolerances()

    @abstractmethod
    def expected_counts(self, obj: ComplexArray, probe: ComplexArray, positions: FloatArray) -> FloatArray:
        """The backend's own forward model, in the layout of the core.

        Parameters
        ----------
        obj:
            (H, W) complex64.
        probe:
            (modes, N, N) complex64, in counts.
        positions:
            (b, 2) float64 (y, x), object pixels; every window lies inside the object.

        Returns
        -------
        (b, N, N) expected counts, DC at ``[N//2, N//2]``.
        """

    @pytest.mark.parametrize("N", [32, 64])
    @pytest.mark.parametrize("modes", [1, 3])
    def test_the_forward_model_is_that_of_the_core(self, N: int, modes: int) -> None:  # noqa: N803
        """[CONF-060] [PHYS-001] Fractional positions, an object with no symmetry, any number of modes."""
        obj = simulate_object("letter", (N + 22, N + 30), np.random.default_rng(3))
        probe = simulate_probe("defocused", N, photons=1e5, modes=modes)
        offsets = np.array([[0.0, 0.0], [3.3, -4.2], [-5.5, 2.0], [7.25, 9.75]])
        positions = (np.array(obj.shape) - 1) / 2 + offsets
        expected = expected_counts(obj, probe, positions)
        found = self.expected_counts(obj, probe, positions)
        assert found.shape == expected.shape
        assert np.abs(found - expected).max() <= self.tolerances.forward * expected.max()
