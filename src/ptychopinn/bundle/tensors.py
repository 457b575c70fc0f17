"""Convert the tensors of a model archive, named arrays, to and from HDF5 bytes.

The bytes are untrusted: links, virtual or external storage, filters (which load shared libraries), attributes and
compound types are refused before any value is read.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping

import h5py
import numpy as np

from ptychopinn.errors import ArchiveError
from ptychopinn.typing import AnyArray

MODEL_DTYPES = ("float32", "complex64")
CHECKPOINT_DTYPES = (
    *MODEL_DTYPES,
    *("float64", "complex128", "bool"),
    *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
)
MAX_TENSORS = 100_000
HISTORY = "history/"  # of a checkpoint: figures; NaN in epochs without a value

_REMEDY = "Do not trust the file; a model archive holds plain tensors only."
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*(/[A-Za-z0-9_-][A-Za-z0-9_.-]*){0,15}")


def _check_tensor(name: str, array: AnyArray, *, source: str, checkpoint: bool) -> None:
    allowed = CHECKPOINT_DTYPES if checkpoint else MODEL_DTYPES
    if array.dtype.name not in allowed or not array.dtype.isnative:
        raise ArchiveError(
            f"{source}: the tensor {name!r} has the dtype {array.dtype}; allowed are {', '.join(allowed)}.",
            "Convert it before it is saved.",
        )
    if not (checkpoint and name.startswith(HISTORY)) and not np.isfinite(array).all():
        raise ArchiveError(
            f"{source}: the tensor {name!r} of shape {array.shape} holds values that are not finite.",
            "The training went wrong: lower the learning rate and train again.",
        )


def pack_weights(weights: Mapping[str, AnyArray], *, checkpoint: bool = False) -> bytes:
    """Pack named arrays into HDF5 bytes; the same arrays give the same bytes.

    Raises ArchiveError if a name, dtype or value is not allowed, or there is none.
    """
    if not 0 < len(weights) <= MAX_TENSORS:
        raise ArchiveError(f"{len(weights)} tensors cannot be saved.", "Save a model that has been built.")
    groups = {name.rsplit("/", depth)[0] for name in weights for depth in range(1, name.count("/") + 1)}
    for name, array in weights.items():
        if not _NAME.fullmatch(name):
            raise ArchiveError(f"The tensor name {name!r} is not allowed.", "Use names like 'encoder/0/weight'.")
        if name in groups:
            raise ArchiveError(f"The tensor name {name!r} is also the group of another.", "Rename one of them.")
        _check_tensor(name, np.asarray(array), source="The model to save", checkpoint=checkpoint)
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", track_order=False) as file:
        for name in sorted(weights):
            file.create_dataset(name, data=np.asarray(weights[name], order="C"), track_times=False)
    return buffer.getvalue()


def unpack_weights(content: bytes, *, source: str, checkpoint: bool = False, limit: int) -> dict[str, AnyArray]:
    """Unpack named arrays from HDF5 bytes after checking all of them; ``limit`` is for all arrays together.

    Raises
    ------
    ArchiveError
        If there is anything but finite, contiguous, uncompressed arrays of the allowed dtypes. The history of a
        checkpoint may have NaN.
    """
    try:
        with h5py.File(io.BytesIO(content), "r") as file:
            if len(file.attrs):
                raise ArchiveError(f"{source}: the tensors come with attributes.", _REMEDY)
            datasets: dict[str, h5py.Dataset] = {}
            _collect(file, "", datasets, seen=set(), source=source)
            if (total := sum(dataset.nbytes for dataset in datasets.values())) > limit:
                raise ArchiveError(f"{source}: the tensors have {total:,} bytes.", f"The limit is {limit:,}.")
            weights = {name: np.asarray(dataset[()]) for name, dataset in datasets.items()}
    except (ArchiveError, MemoryError):
        raise
    except Exception as error:  # untrusted bytes: h5py can raise anything
        raise ArchiveError(f"{source}: the tensors cannot be read: {error}.", "Copy or save the file again.") from error
    if not weights:
        raise ArchiveError(f"{source} holds no tensors.", "Save the model again.")
    for name, array in weights.items():
        _check_tensor(name, array, source=source, checkpoint=checkpoint)
    return weights


def _collect(group: h5py.Group, prefix: str, into: dict[str, h5py.Dataset], *, seen: set[int], source: str) -> None:
    for key in group:
        name = prefix + key
        if not _NAME.fullmatch(name):
            raise ArchiveError(f"{source}: the tensor name {name[:80]!r} is not allowed.", _REMEDY)
        if not isinstance(group.get(key, getlink=True), h5py.HardLink):
            raise ArchiveError(f"{source}: {name!r} is a link to another place.", _REMEDY)
        item = group[key]
        address = h5py.h5o.get_info(item.id).addr
        if address in seen or len(seen) > 2 * MAX_TENSORS:
            raise ArchiveError(f"{source}: {name!r} leads to what was there already.", _REMEDY)
        seen.add(address)
        if len(item.attrs):
            raise ArchiveError(f"{source}: {name!r} has attributes.", _REMEDY)
        if isinstance(item, h5py.Group):
            _collect(item, name + "/", into, seen=seen, source=source)
        elif isinstance(item, h5py.Dataset):
            _check_storage(item, name, source=source)
            into[name] = item
        else:
            raise ArchiveError(f"{source}: {name!r} is neither a group nor a dataset.", _REMEDY)


def _check_storage(dataset: h5py.Dataset, name: str, *, source: str) -> None:
    if dataset.dtype.kind not in "fciub":
        raise ArchiveError(f"{source}: the tensor {name!r} has the dtype {dataset.dtype}, which is no number.", _REMEDY)
    creation = dataset.id.get_create_plist()
    if creation.get_external_count() > 0:
        raise ArchiveError(f"{source}: the tensor {name!r} is stored in another file.", _REMEDY)
    if creation.get_nfilters() > 0:
        raise ArchiveError(f"{source}: the tensor {name!r} is stored with a filter.", _REMEDY)
    if dataset.is_virtual or creation.get_layout() not in (h5py.h5d.CONTIGUOUS, h5py.h5d.COMPACT):
        raise ArchiveError(f"{source}: the tensor {name!r} is not stored in one piece.", _REMEDY)
    if dataset.shape is None or dataset.id.get_storage_size() < dataset.nbytes:
        raise ArchiveError(f"{source}: the tensor {name!r} claims more than is stored.", _REMEDY)
