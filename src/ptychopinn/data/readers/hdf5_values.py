"""Values of an HDF5 tree: arrays, numbers with units, texts. What readers of HDF5 formats share."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import h5py
import numpy as np

from ptychopinn.data.bad_values import Unmeasured
from ptychopinn.data.hdf5 import member_of
from ptychopinn.data.hdf5_tree import Hdf5Tree
from ptychopinn.data.raw_scan import RawScan
from ptychopinn.errors import DataError
from ptychopinn.probe_variation import ProbeVariation, mean_and_variation
from ptychopinn.typing import AnyArray, BoolArray, ComplexArray, FloatArray, IntArray

_MAX_TEXT = 4096
_MAX_NUMBERS = 1 << 20  # one a pattern, where a file repeats it
_METRES = {
    **{"m": 1.0, "meter": 1.0, "metre": 1.0, "meters": 1.0, "metres": 1.0, "mm": 1e-3, "millimeter": 1e-3},
    **{"um": 1e-6, "µm": 1e-6, "μm": 1e-6, "micron": 1e-6, "microns": 1e-6, "micrometer": 1e-6, "nm": 1e-9},
    **{"nanometer": 1e-9, "a": 1e-10, "å": 1e-10, "angstrom": 1e-10, "pm": 1e-12},
}
_ELECTRONVOLTS = {"ev": 1.0, "kev": 1e3, "mev": 1e6, "j": 1 / 1.602176634e-19, "joule": 1 / 1.602176634e-19}


def array(tree: Hdf5Tree, *names: str, group: Any = None) -> AnyArray | None:
    """The values of the first of these datasets that is there; None if none is. Large ones are mapped or unpacked once.

    Raises
    ------
    DataError
        Naming the dataset, if it cannot be read.
    """
    for name in names:
        item = tree.find(name) if group is None else tree.member(group, name)
        if isinstance(item, h5py.Dataset):
            return values_of(tree, item)
    return None


def values_of(tree: Hdf5Tree, dataset: Any) -> AnyArray:
    """The values of a dataset.

    Raises
    ------
    DataError
        Naming it.
    """
    try:
        return member_of(tree, dataset).load()
    except DataError as error:
        raise DataError(f"{str(dataset.name)[:200]}: {error.problem}", error.remedy) from error


def require(tree: Hdf5Tree, what: str, *names: str) -> AnyArray:
    """As `array`; if there is none, the error lists what the file has.

    Raises
    ------
    DataError
        If none of the datasets is there.
    """
    found = array(tree, *names)
    if found is None:
        raise missing(tree, what, names)
    return found


def missing(tree: Hdf5Tree, what: str, names: tuple[str, ...]) -> DataError:
    """The error for an array that is not there."""
    return DataError(
        f"{tree.path} has no {what} ({' or '.join(names)}); it has {tree.listing()}.",
        "Write it there, or convert the file to a form that docs/formats.md lists.",
    )


def _small(item: Any) -> Any:
    """A dataset that may be a number or a few.

    Raises
    ------
    DataError
        If it is large: it is no number, and not worth its memory.
    """
    if item.size is not None and item.size > _MAX_NUMBERS:
        raise DataError(
            f"{str(item.name)[:200]} has the shape {item.shape}; a number is needed.", "Write the file again."
        )
    return item


def number(tree: Hdf5Tree, *names: str, group: Any = None) -> float | None:
    """The first of these datasets that is there, as a number; the mean of several equal ones."""
    for name in names:
        item = tree.find(name) if group is None else tree.member(group, name)
        if isinstance(item, h5py.Dataset):
            return one_number(values_of(tree, _small(item)))
    return None


def one_number(values: Any) -> float | None:
    """A finite number out of an array; the middle one of several, None for anything else."""
    values = np.asarray(values)
    if values.dtype.kind not in "iuf" or not values.size:
        return None
    value = float(np.median(values.astype(np.float64)))
    return value if math.isfinite(value) else None


def number_attribute(tree: Hdf5Tree, name: str, attribute: str) -> float | None:
    """A number that is an attribute; None if it is not there."""
    item = tree.find(name)
    return None if item is None else one_number(item.attrs.get(attribute, ()))


def text(tree: Hdf5Tree, name: str) -> str:
    """A dataset or attribute (``group@attribute``) as text; empty if it is not there or no text."""
    path, at, attribute = name.partition("@")
    item = tree.find(path)
    if item is None:
        return ""
    if at:
        return attribute_text(item, attribute)
    if not isinstance(item, h5py.Dataset) or h5py.check_string_dtype(item.dtype) is None:
        return ""
    return str(values_of(tree, item))[:_MAX_TEXT]


def attribute_text(item: Any, name: str) -> str:
    """A text attribute; empty if there is none."""
    value = item.attrs.get(name, "")
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.reshape(())[()]
    return value.decode("utf-8", "replace")[:_MAX_TEXT] if isinstance(value, bytes) else str(value)[:_MAX_TEXT]


def length(tree: Hdf5Tree, *names: str, group: Any = None, default: str = "m") -> float | None:
    """The first of these datasets as metres, by its attribute ``units``."""
    return _read_in_unit(tree, names, group, _METRES, default)


def energy(tree: Hdf5Tree, *names: str, group: Any = None, default: str = "eV") -> float | None:
    """The first of these datasets as electronvolts, by its attribute ``units``."""
    return _read_in_unit(tree, names, group, _ELECTRONVOLTS, default)


def _read_in_unit(
    tree: Hdf5Tree, names: tuple[str, ...], group: Any, table: dict[str, float], default: str
) -> float | None:
    for name in names:
        item = tree.find(name) if group is None else tree.member(group, name)
        if isinstance(item, h5py.Dataset) and (value := one_number(values_of(tree, _small(item)))) is not None:
            return value * unit_factor(item, table, default)
    return None


def unit_factor(item: Any, table: dict[str, float] | None = None, default: str = "m") -> float:
    """The factor of the unit that a dataset's attribute ``units`` names, to metres unless another table is given.

    Raises
    ------
    DataError
        If the unit is not known.
    """
    unit = (attribute_text(item, "units") or attribute_text(item, "unit") or default).strip()
    table = _METRES if table is None else table
    if unit.lower() not in table:
        raise DataError(
            f"{str(item.name)[:200]} has the unit '{unit[:50]}', which is not known.",
            f"Use one of {', '.join(table)}.",
        )
    return table[unit.lower()]


@dataclass(frozen=True, eq=False)
class FoundProbe:
    """The probe of a file, under the names of `RawScan`."""

    probe: ComplexArray | None  # (modes, H, W)
    probe_variation: ProbeVariation | None = None
    warnings: tuple[str, ...] = ()  # what was taken, where a dimension cannot be told from another

    def of(self, raw: RawScan) -> RawScan:
        """The scan with this probe."""
        warnings = (*raw.warnings, *self.warnings)
        return replace(raw, probe=self.probe, probe_variation=self.probe_variation, warnings=warnings)

    def select(self, indices: IntArray) -> FoundProbe:
        """With the weights of the patterns ``indices``."""
        variation = self.probe_variation
        return self if variation is None else replace(self, probe_variation=variation.select(indices))


def find_probe(found: AnyArray | None, weights: AnyArray | None = None) -> FoundProbe:
    """The probe of an array (H, W), (modes, H, W) or (OPR modes, modes, H, W), with all its incoherent modes.

    Axes of length 1 count for nothing. OPR modes need their weights, (patterns, OPR modes); without them, the first is
    taken, and a warning says so.

    Raises
    ------
    DataError
        For other shapes and dtypes, or for weights of other OPR modes.
    """
    if found is None:
        return FoundProbe(None)
    shape = found.shape
    if found.dtype.kind not in "fc" or found.ndim < 2 or 0 in shape:
        raise DataError(f"The probe has the shape {shape} and the dtype {found.dtype}.", "Save it as (modes, H, W).")
    if weights is not None and weights.ndim == 2 and found.ndim == 4:
        probe, variation = mean_and_variation(found, weights)
        return FoundProbe(probe, variation)
    leading = tuple(n for n in shape[:-2] if n > 1)
    found = found.reshape(*(leading or (1,)), *shape[-2:])
    if len(leading) < 2:
        return FoundProbe(found)
    first = found.reshape(-1, *found.shape[-3:])[0]
    return FoundProbe(
        first,
        warnings=(
            f"The probe has the shape {shape}: the {leading[-1]} along the axis before the last two are read as "
            f"incoherent modes, of the first of {math.prod(leading[:-1])} along the axes before it. These may be OPR "
            "modes without weights, or probes of several scans.",
        ),
    )


def bad_pixels(mask: AnyArray | None, *, good: int | None = None) -> BoolArray | None:
    """(H, W) bool: pixels that are bad in every pattern. In the mask 0 is good; with ``good`` that value is.

    Raises
    ------
    DataError
        If the mask has another number of axes.
    """
    if mask is None:
        return None
    bad: BoolArray = np.asarray(np.not_equal(mask, 0 if good is None else good))
    while bad.ndim > 2:
        bad = np.asarray(bad.all(axis=0))
    if bad.ndim != 2:
        raise DataError(f"The mask has the shape {np.shape(mask)}.", "Save it as (H, W).")
    return bad


def masked(
    raw: RawScan, mask: AnyArray | None, is_bad: Callable[[AnyArray], BoolArray] = lambda mask: np.not_equal(mask, 0)
) -> RawScan:
    """A scan with bad pixels of a mask (H, W), or with bad values of masks (n, H, W), one a pattern.

    Raises
    ------
    DataError
        If the mask has another shape.
    """
    if mask is None:
        return raw
    if mask.ndim == 3 and mask.shape[0] == len(raw.patterns):
        found = Unmeasured.of_masks(mask, is_bad)
        return replace(raw, bad_pixels=found.pixels, bad_values=found.values)
    return replace(raw, bad_pixels=bad_pixels(is_bad(mask)))


def stacked(y: FloatArray, x: FloatArray) -> FloatArray:
    """(n, 2) float64 (y, x) of two arrays of one length.

    Raises
    ------
    DataError
        If their lengths differ.
    """
    y, x = np.ravel(y), np.ravel(x)
    if y.shape != x.shape or y.dtype.kind not in "iuf" or x.dtype.kind not in "iuf":
        raise DataError(
            f"There are {len(y)} positions in y ({y.dtype}) and {len(x)} in x ({x.dtype}).",
            "Give every pattern its position, in both axes.",
        )
    return np.stack([y, x], axis=1).astype(np.float64)
