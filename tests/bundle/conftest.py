"""A model archive that was written."""

from pathlib import Path

import pytest
from bundle_files import WEIGHTS, manifest

from ptychopinn.bundle import (
    write_bundle,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "wts.h5.zip"


@pytest.fixture
def saved(path: Path) -> Path:
    write_bundle(path, manifest(), WEIGHTS)
    return path
