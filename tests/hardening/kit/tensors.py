"""HDF5 files with what a stranger could put into them, and mutations of those that are whole."""

from __future__ import annotations

import io
import random
from typing import Any

import h5py
import numpy as np
from hardening.kit.mutation import pick

OTHER_DTYPES = (
    *("<f2", ">f4", "<f8", ">c8", "c16", "i1", ">u8", "<i4", "?", "S5", "longdouble"),
    np.dtype([("a", "<f4"), ("b", "<i4")]),
    h5py.string_dtype(),
    h5py.vlen_dtype(np.float32),
    h5py.ref_dtype,
    h5py.enum_dtype({"A": 0, "B": 1}),
    np.dtype(("<f4", (3,))),
)
_MISSING_FILTER = 32_008  # bitshuffle's registered number
_DOUBTFUL_ATTRIBUTES: tuple[Any, ...] = (
    *(np.nan, np.inf, -1.0, 0.0, 1e300, "text", b"\xff\xfe", np.zeros(5), np.zeros(0), 2**62, "x" * 60_000, True),
    *(np.zeros(3, [("a", "<f4")]), h5py.Empty("f"), np.array(["a", "b"], dtype=object)),
)
HOWS = (
    *("external link", "soft link", "loop", "hard link", "external storage", "virtual", "gzip", "missing filter"),
    *("dtype", "dtype", "nan", "empty space", "scalar", "zero", "huge", "shape", "attribute", "remove", "group"),
    *("name", "deep", "committed", "swap", "big", "doubtful attribute", "user block"),
)


def harm(rng: random.Random, content: bytes) -> tuple[str, bytes]:
    """Change one thing about an HDF5 file's structure."""
    buffer = io.BytesIO(content)
    with h5py.File(buffer, "r+") as file:
        names: list[str] = []
        file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        name = pick(rng, sorted(names))
        how = pick(rng, HOWS)
        array = file[name][()]
        attributes = dict(file[name].attrs)
        if how == "user block":
            return how, bytes(512) + content
        if how == "doubtful attribute":
            holder = pick(rng, (file, file[name]))
            keys = sorted(holder.attrs) or ["surplus"]
            holder.attrs[pick(rng, keys)] = pick(rng, _DOUBTFUL_ATTRIBUTES)
        elif how == "attribute":
            holder = pick(rng, (file, file[name]))
            keys = sorted(holder.attrs)
            if keys and rng.random() < 0.7:
                del holder.attrs[pick(rng, keys)]
            else:
                holder.attrs["surplus"] = 1
        elif how == "hard link":
            file["again"] = file[name]
        elif how == "loop":
            file["loop"] = file["/"]
        elif how == "deep":
            file.create_group("/".join(["deep"] * 300))
        elif how == "group":
            file.create_group("surplus")
        elif how == "committed":
            file["surplus"] = np.dtype("<f4")
        else:
            del file[name]
            _put(rng, file, name, how, array)
            if name in file and file.get(name, getlink=True).__class__ is h5py.HardLink:
                for key, value in attributes.items():
                    file[name].attrs[key] = value
    return f"{how} {name}", buffer.getvalue()


def _put(rng: random.Random, file: Any, name: str, how: str, array: Any) -> None:
    array = np.asarray(array)
    shape = array.shape
    if how == "external link":
        file[name] = h5py.ExternalLink(pick(rng, ("/etc/passwd", "../secret.h5", "/dev/zero")), "/object")
    elif how == "soft link":
        file[name] = h5py.SoftLink(pick(rng, ("/", "/nowhere", f"/{name}")))
    elif how == "external storage":
        outside = [("/etc/passwd", 0, h5py.h5f.UNLIMITED)]
        file.create_dataset(name, shape or (1,), array.dtype, external=outside)
    elif how == "virtual":
        layout = h5py.VirtualLayout(shape or (1,), array.dtype)
        layout[...] = h5py.VirtualSource(pick(rng, (".", "/etc/passwd")), "object", shape or (1,))
        file.create_virtual_dataset(name, layout)
    elif how == "gzip":
        file.create_dataset(name, data=np.atleast_1d(array), compression="gzip")
    elif how == "missing filter":
        _put_filtered(file, name, array)
    elif how == "dtype":
        dtype = pick(rng, OTHER_DTYPES)
        file.create_dataset(name, shape, dtype)
    elif how == "nan":
        array = np.atleast_1d(array).copy()
        if array.dtype.kind in "fc" and array.size:
            array.reshape(-1)[rng.randrange(array.size)] = pick(rng, (np.nan, np.inf, 1e38))
        file[name] = array
    elif how == "empty space":
        file[name] = h5py.Empty(array.dtype)
    elif how == "scalar":
        file[name] = np.zeros((), array.dtype)
    elif how == "zero":
        file[name] = np.zeros((*shape[:-1], 0), array.dtype)
    elif how == "huge":
        large = (pick(rng, (2**33, 2**50)), *shape[1:])
        file.create_dataset(name, large, array.dtype, chunks=tuple(min(n, 16) or 1 for n in large))
    elif how == "big":  # far more than the file holds, and little enough to be tempting
        rows = (1 << 29) // max(int(np.prod(shape[1:])) * array.dtype.itemsize, 1)
        file.create_dataset(name, (rows, *shape[1:]), array.dtype, chunks=True, compression="gzip")
    elif how == "shape":
        shaped = (
            (array[None], np.moveaxis(array, 0, -1), array[:1], array.reshape(-1)) if array.ndim else (array[None],)
        )
        file[name] = pick(rng, shaped)
    elif how == "name":
        file[pick(rng, ("..x/../y", " ", "x" * 5000, "\u202e", "a b", name + "/inner"))] = array
    elif how == "swap":
        others = sorted(file)  # none, if the file has one dataset alone
        other = file[pick(rng, others)] if others else None
        file[name] = other[()] if isinstance(other, h5py.Dataset) else array


def _put_filtered(file: Any, name: str, array: Any) -> None:
    """A dataset whose filter nobody has: written raw, as its writer would have packed it."""
    array = np.atleast_1d(array)
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_chunk(tuple(max(n, 1) for n in array.shape))
    creation.set_filter(_MISSING_FILTER, h5py.h5z.FLAG_OPTIONAL, ())
    *groups, last = name.split("/")
    holder = file.require_group("/".join(groups)) if groups else file
    space = h5py.h5s.create_simple(array.shape)
    dataset = h5py.h5d.create(holder.id, last.encode(), h5py.h5t.py_create(array.dtype), space, creation)
    if array.size:
        dataset.write_direct_chunk((0,) * array.ndim, array.tobytes(), filter_mask=0)
