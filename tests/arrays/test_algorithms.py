"""Each algorithm agrees with itself on NumPy (`array_suite.algorithms`). Requirements: specs/19-arrays.md."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from array_libraries import library_of
from array_suite.algorithms import *  # noqa: F403

from ptychopinn.arrays import ArrayLibrary


@pytest.fixture(params=["strict", "jax"])
def library(request: pytest.FixtureRequest) -> Iterator[ArrayLibrary]:
    with library_of(request.param) as library:
        yield library
