"""Every array library gives the same (`array_suite.operations`). Requirements: specs/19-arrays.md."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from array_libraries import library_of
from array_suite.operations import *  # noqa: F403

from ptychopinn.arrays import ArrayLibrary


@pytest.fixture(params=["numpy", "numpy session", "strict", "jax"])
def library(request: pytest.FixtureRequest) -> Iterator[ArrayLibrary]:
    with library_of(request.param) as library:
        yield library
