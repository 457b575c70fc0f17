"""Files that the data tests share."""

import numpy as np
import pytest


@pytest.fixture
def save(tmp_path, scan_arrays):
    """Writes a tiny scan with some keys changed and gives its path."""

    def write(compressed=False, **changes):
        path = tmp_path / "scan.npz"
        if "diff3d" in changes:
            changes = {"_metadata": None} | changes  # that of the tiny scan says amplitude
        (np.savez_compressed if compressed else np.savez)(path, **scan_arrays(**changes))
        return path

    return write


@pytest.fixture
def counts(scan_arrays):
    """(9, 32, 32) uint16 counts of the tiny scan."""
    return np.rint(scan_arrays()["diffraction"] ** 2).astype(np.uint16)
