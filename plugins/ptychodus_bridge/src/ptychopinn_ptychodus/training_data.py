"""What a directory holds to train on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ptychopinn.data.io import write_scan
from ptychopinn.errors import DataError

_TRAIN, _TEST = "train_data.npz", "test_data.npz"
_DIFFRACTION, _PRODUCT = "diffraction.h5", "product.h5"


@dataclass(frozen=True)
class TrainingFiles:
    """The files to train on: scans as NPZ, or Ptychodus's pair of HDF5 files."""

    train: Path | None = None
    test: Path | None = None
    diffraction: Path | None = None
    product: Path | None = None


def find_training_files(folder: Path) -> TrainingFiles | None:
    """The files of a directory to train on, or None.

    They are ``train_data.npz``, else ``diffraction.h5`` with ``product.h5``, else the only NPZ file.

    Raises DataError if there are several NPZ files and none of them is called train_data.npz.
    """
    scans = {path.name: path for path in sorted(folder.glob("*.npz"))}
    if _TRAIN in scans:
        return TrainingFiles(train=scans[_TRAIN], test=scans.get(_TEST))
    if (folder / _DIFFRACTION).is_file() and (folder / _PRODUCT).is_file():
        return TrainingFiles(diffraction=folder / _DIFFRACTION, product=folder / _PRODUCT)
    if len(scans) == 1:
        return TrainingFiles(train=next(iter(scans.values())))
    if scans:
        raise DataError(
            f"{folder} holds {len(scans)} NPZ files: {', '.join(list(scans)[:5])}.",
            f"Keep the one to train on, or call it {_TRAIN} (and one to validate on {_TEST}).",
        )
    return None


def nothing_to_train_on(folder: Path) -> DataError:
    """The error for a directory without training data."""
    return DataError(
        f"{folder} holds nothing to train on: no *.npz, and not both diffraction.h5 and product.h5.",
        "Export training data into it, or choose another directory.",
    )


def scan_files(files: TrainingFiles, scratch: Path) -> tuple[Path, Path | None]:
    """NPZ of the scan to train on, and of one to validate on or None; Ptychodus's pair is written as one.

    Raises DataError if the pair is refused.
    """
    if files.train is not None:
        return files.train, files.test
    if files.diffraction is None or files.product is None:
        raise ValueError("there are no files to read")
    from ptychodus.api.io import load_diffraction_data, load_product
    from ptychodus.api.reconstruct import prepare_reconstruct_input

    from ptychopinn_ptychodus.conversion import scan_of

    try:
        parameters = prepare_reconstruct_input(load_diffraction_data(files.diffraction), load_product(files.product))
    except (OSError, KeyError, ValueError) as error:
        raise DataError(
            f"{files.diffraction} and {files.product.name} cannot be read as a scan: {error}.",
            "Save them again with Ptychodus.",
        ) from error
    write_scan(scratch / "pair.npz", scan_of(parameters, with_object=True))
    return scratch / "pair.npz", None
