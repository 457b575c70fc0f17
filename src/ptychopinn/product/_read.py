"""Read product files, also untrusted ones."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ptychopinn.errors import DataError, ResourceError
from ptychopinn.hdf5_chunks import check_chunks
from ptychopinn.hdf5_files import open_hdf5_file
from ptychopinn.path_checks import why_unreadable
from ptychopinn.probe_variation import from_opr
from ptychopinn.product._formats import entry_of, read_other_product
from ptychopinn.product._model import OWN_DATASETS, Product
from ptychopinn.product._write import PLACEHOLDERS_ATTRIBUTE, PLACEHOLDERS_LINE
from ptychopinn.typing import AnyArray, ComplexArray, StrPath

_MAX_BYTES = 4 * 2**30
_MAX_TEXT = 2**16
_DAMAGED = (OSError, RuntimeError, ValueError, KeyError, TypeError, OverflowError)  # exceptions of h5py


def read_product(path: StrPath, *, max_bytes: int = _MAX_BYTES) -> Product:
    """Read a product that this software or Ptychodus wrote, also one that this software wrote as CXI or NeXus.

    Positions come back as pixels of the object's own array (``origin`` is (0, 0)). Layers of an object are
    multiplied. Placeholders and values that are not positive become
    None. Safe for untrusted files: external links, data outside the file, and small files that unpack to huge sizes are
    refused before anything is read.

    Parameters
    ----------
    max_bytes:
        Bytes that one dataset may unpack to, unless the file itself holds as many.

    Raises
    ------
    DataError
        If the file does not exist, is damaged, not a product, or not safe.
    ResourceError
        If memory runs out.
    """
    path = Path(path)
    if (why := why_unreadable(path)) is not None:
        raise DataError(f"The product {path} {why}.", "Give the path of a Ptychodus product (HDF5).")
    with _refusing(path), open_hdf5_file(path) as file:
        if (entry := entry_of(file)) is not None:
            return read_other_product(path, entry)
        return _parse(_Reader(file, max_bytes))


@contextmanager
def _refusing(path: Path) -> Iterator[None]:
    """Add the path to errors, and translate exceptions of h5py and NumPy for damaged files."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{path}: {error.problem}", error.remedy) from error
    except MemoryError as error:
        raise ResourceError(f"{path} does not fit into memory: {error}.", "Use a machine with more memory.") from error
    except _DAMAGED as error:
        raise DataError(
            f"{path} cannot be read as a Ptychodus product: {error}.",
            "The file is damaged, truncated, of another kind, or compressed with a filter that is not installed; "
            "write it again.",
        ) from error


@dataclass(frozen=True)
class _Reader:
    """Checked access to an open file."""

    file: Any
    max_bytes: int

    def dataset(self, name: str, ndims: tuple[int, ...], kinds: str) -> Any:
        """An HDF5 dataset in this file, of one of these ranks and dtype kinds, or None."""
        link = self.file.get(name, getlink=True)
        if link is None:
            return None
        if not isinstance(link, h5py.HardLink):
            raise _refusal(f"'{name}' is a link to elsewhere.", "Copy the data into the file itself.")
        item = self.file[name]
        if not isinstance(item, h5py.Dataset):
            raise _refusal(f"'{name}' is not a dataset.")
        if item.is_virtual or item.external:
            raise _refusal(f"The data of '{name}' lie outside the file.", "Copy them into the file itself.")
        if item.dtype.kind not in kinds or item.ndim not in ndims:
            raise _refusal(f"'{name}' has the shape {item.shape} and the dtype {item.dtype}.")
        size = math.prod(item.shape) * item.dtype.itemsize
        if size > max(self.max_bytes, item.id.get_storage_size()):
            raise _refusal(
                f"'{name}' of shape {item.shape} unpacks to {size} bytes, more than {self.max_bytes}.",
                "If the file is trusted, raise max_bytes or store it uncompressed.",
            )
        check_chunks(item)
        return item

    def require(self, name: str, ndims: tuple[int, ...], kinds: str) -> AnyArray:
        """The values of a required dataset."""
        item = self.dataset(name, ndims, kinds)
        if item is None:
            raise _refusal(f"The dataset '{name}' is missing; the file has {[n[:40] for n in self.file][:20]}.")
        values: AnyArray = item[()]
        return values

    def number(self, name: str, attribute: str) -> float | None:
        """A scalar attribute of an object in the file, or None."""
        attributes = self.file[name].attrs
        if attribute not in attributes:
            return None
        value = np.asarray(attributes[attribute])
        if value.size != 1 or value.dtype.kind not in "iufb":
            raise _refusal(f"The attribute '{attribute}' of '{name}' is {str(value)[:80]!r}, not a number.")
        return float(value.reshape(()))

    def finite(self, name: str, attribute: str) -> float:
        """A required, finite scalar attribute."""
        value = self.number(name, attribute)
        if value is None or not math.isfinite(value):
            raise _refusal(f"The attribute '{attribute}' of '{name}' is {value}; a number is needed.")
        return value

    def positive(self, *attributes: str) -> float | None:
        """The first existing one of these attributes of the file; None if there is none or it is not positive."""
        for attribute in attributes:
            value = self.number("/", attribute)
            if value is not None:
                return value if math.isfinite(value) and value > 0 else None
        return None

    def text(self, attribute: str) -> str:
        """A text attribute of the file, or an empty text."""
        value = self.file.attrs.get(attribute, "")
        if isinstance(value, bytes):
            value = value.decode("utf-8", errors="replace")
        return str(value)[:_MAX_TEXT]


def _refusal(problem: str, remedy: str = "Save the product with Ptychodus or this software.") -> DataError:
    return DataError(problem, remedy)


def _parse(reader: _Reader) -> Product:
    obj: ComplexArray = reader.require("object", (2, 3), "c")
    if obj.ndim == 3:
        obj = obj[0] if len(obj) == 1 else obj.prod(axis=0)
    probe: ComplexArray = reader.require("probe", (2, 3, 4), "c")
    weights = reader.dataset("opr_weights", (2,), "f")
    probe, variation = from_opr(probe, None if weights is None else weights[()])
    pixel = np.array([reader.finite("object", f"pixel_{side}_m") for side in ("height", "width")])
    centre_m = np.array([reader.finite("object", f"center_{axis}_m") for axis in "yx"])
    if not (pixel > 0).all():
        raise _refusal(f"The object's pixels are {pixel.tolist()} m wide.", "Pixel sizes must be positive.")
    y_m, x_m = (reader.require(f"probe_position_{axis}_m", (1,), "fiu") for axis in "yx")
    if y_m.shape != x_m.shape:
        raise _refusal(f"There are {len(y_m)} positions in y and {len(x_m)} in x.")
    positions_m = np.stack([y_m, x_m], axis=1)
    stored = {name: reader.dataset(name, (rank,), "fiu") for name, rank in OWN_DATASETS.items()}
    own: dict[str, Any] = {name: values[()] for name, values in stored.items() if values is not None}

    placeholders = reader.text(PLACEHOLDERS_ATTRIBUTE).split(",")
    comments = reader.text("comments").splitlines()
    if any(placeholders):  # they become None, and are listed again when the product is written
        comments = [line for line in comments if not line.startswith(PLACEHOLDERS_LINE)]
    energy = reader.positive("photon_energy_eV", "probe_energy_eV")  # the second is the name before 1.7
    distance = reader.positive("detector_object_distance_m")
    return Product(
        name=reader.text("name") or "Unnamed",
        comments="\n".join(comments),
        positions=(positions_m - centre_m) / pixel + (np.array(obj.shape) - 1) / 2,
        indexes=reader.require("probe_position_indexes", (1,), "iu"),
        probe=probe,
        variation=variation,
        object=obj,
        pixel_size_m=None if "pixel_size" in placeholders else (float(pixel[0]), float(pixel[1])),
        energy_eV=None if "photon_energy" in placeholders else energy,
        detector_distance_m=None if "detector_distance" in placeholders else distance,
        photon_count=reader.positive("probe_photon_count"),
        exposure_time_s=reader.positive("exposure_time_s"),
        losses=_losses(reader),
        **own,
    )


def _losses(reader: _Reader) -> tuple[tuple[int, float], ...]:
    epochs = reader.dataset("loss_epochs", (1,), "iuf")  # an empty list is stored as floats
    values = reader.dataset("loss_values", (1,), "iuf")
    if epochs is None or values is None:
        return ()
    pairs = zip(epochs[()].tolist(), values[()].tolist(), strict=False)  # as Ptychodus reads them
    return tuple((int(epoch), float(value)) for epoch, value in pairs)
