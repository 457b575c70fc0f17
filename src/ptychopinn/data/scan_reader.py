"""Read and validate every key of a scan file except the patterns; conversions are reported."""

from __future__ import annotations

import json
import reprlib
from typing import Any

import numpy as np
from pydantic import ValidationError

from ptychopinn.data.bad_values import MASKS_KEY, OFFSETS_KEY, PIXELS_KEY, BadValues, Unmeasured
from ptychopinn.data.dataset import ScanMetadata
from ptychopinn.data.diagnostics import Findings
from ptychopinn.data.scan_file import ScanFile
from ptychopinn.data.sizes import measured_box
from ptychopinn.errors import DataError
from ptychopinn.probe_variation import MODES_KEY, WEIGHTS_KEY, ProbeVariation
from ptychopinn.typing import AnyArray, BoolArray, ComplexArray, FloatArray, IntArray

SCHEMA_VERSION = 1
_BLOCK = 256
_CONVERT_POSITIONS = ", or give a file of them: ptychopinn convert --positions FILE"
_COMMANDS = {
    "probeGuess": ", or let a probe be made: --probe mean",
    "xcoords": _CONVERT_POSITIONS,
    "ycoords": _CONVERT_POSITIONS,
}


class Reader:
    """Reads the keys of a file and collects their problems. Every method returns None if it found an error."""

    def __init__(self, file: ScanFile, findings: Findings) -> None:
        self.file = file
        self.findings = findings

    def load(self, key: str, *, kinds: str, what: str, required: bool = False) -> AnyArray | None:
        """The array of a key, if its dtype is one of ``kinds`` (NumPy's letters; ``what`` describes them)."""
        if key in self.file.broken:
            self.findings.refused(key, self.file.broken[key])
            return None
        member = self.file.members.get(key)
        if member is None:
            if required:
                self.findings.error(
                    key,
                    f"The key is missing; the file has {self.file.listed}.",
                    f"Add {what} under '{key}'{_COMMANDS.get(key, '')}.",
                )
            return None
        if member.dtype.kind not in kinds:
            self.findings.error(key, f"It has {member}; {what} is needed.", f"Save it as {what}.")
            return None
        try:
            return member.load()
        except DataError as error:
            self.findings.refused(key, error)
            return None

    def has(self, key: str) -> bool:
        """Whether the file names the key, readable or not."""
        return key in self.file.members or key in self.file.broken

    def metadata(self) -> ScanMetadata | None:
        """`ScanMetadata` from the JSON text ``_metadata``, or the default."""
        key = "_metadata"
        if not self.has(key):
            return ScanMetadata()
        array = self.load(key, kinds="US", what="a JSON text")
        if array is None:
            return None
        remedy = "Save it with numpy.array(json.dumps({...}))."
        if array.size != 1:
            self.findings.error(key, f"It has the shape {array.shape}; one text is needed.", remedy)
            return None
        try:
            text = array.reshape(()).item()
            values = json.loads(text)
            # The text can contain lone surrogates, which cannot be encoded again.
            json.dumps(values, ensure_ascii=False).encode().decode()
        except (ValueError, RecursionError) as error:
            self.findings.error(key, f"It is not JSON: {error}.", remedy)
            return None
        if not isinstance(values, dict):
            self.findings.error(key, f"It is a JSON {type(values).__name__}; an object is needed.", remedy)
            return None
        try:
            metadata = ScanMetadata(**self._in_present_schema(values))
        except ValidationError as error:
            said = "; ".join(
                f"{'.'.join(map(str, e['loc']))} {reprlib.repr(e['input'])}: {e['msg']}" for e in error.errors()[:5]
            )
            self.findings.error(key, f"It does not fit the schema: {said}.", "Correct these entries or leave them out.")
            return None
        if metadata.schema_version > SCHEMA_VERSION:
            self.findings.error(
                key,
                f"It has schema version {metadata.schema_version}; this software knows {SCHEMA_VERSION}.",
                "Read it with a newer version of this software.",
            )
            return None
        return metadata

    def _in_present_schema(self, values: dict[str, Any]) -> dict[str, Any]:
        """Convert older metadata: a version such as "1.0.0", and nphotons in ``physics_parameters``."""
        values = {str(k): v for k, v in values.items()}
        version = values.get("schema_version")
        if isinstance(version, str) and (major := version.partition(".")[0]).isdecimal():
            values["schema_version"] = int(major)
        older = values.get("physics_parameters")
        if isinstance(older, dict) and "nphotons" in older and values.get("nphotons") is None:
            values["nphotons"] = older["nphotons"]
            self.findings.note("_metadata", f"nphotons {older['nphotons']} taken from physics_parameters.")
        return values

    def coordinates(self, key: str) -> FloatArray | None:
        """(n,) float64 of ``xcoords`` or ``ycoords``."""
        array = self.load(key, kinds="iuf", what="(n,) float64 in object pixels", required=True)
        if array is None:
            return None
        if array.ndim != 1:
            self.findings.error(key, f"It has shape {array.shape}; (n,) is needed.", "Save one number a pattern.")
            return None
        if array.dtype != np.float64:
            self.findings.note(key, f"{array.dtype} is read as float64.")
        values = array.astype(np.float64)
        return values

    def probe(self, size: int) -> ComplexArray | None:
        """(modes, N, N) complex64 of ``probeGuess``."""
        key, what = "probeGuess", f"a complex array ({size}, {size}) or (modes, {size}, {size})"
        array = self.load(key, kinds="fc", what=what, required=True)
        if array is None:
            return None
        shape = array.shape
        while array.ndim > 3 and array.shape[0] == 1:
            array = array[0]
        if array.ndim == 2:
            array = array[None]
        if array.ndim == 3 and array.shape[1:] != (size, size) and array.shape[:2] == (size, size):
            array = np.moveaxis(array, 2, 0)
            self.findings.warning(key, f"Shape {shape} is read as (N, N, modes).", "Save it as (modes, N, N).")
        if array.ndim != 3 or array.shape[1:] != (size, size) or array.shape[0] == 0:
            self.findings.error(
                key,
                f"It has shape {shape} and dtype {array.dtype}; the patterns are {size} x {size}, so {what} is needed.",
                "Give a probe of the size of the patterns, or of the same window: --probe FILE resamples it.",
            )
            return None
        if array.shape != shape:
            self.findings.note(key, f"Shape {shape} is read as {array.shape}.")
        probe = self._complex64(key, array)
        if probe is not None and not probe.any():
            self.findings.error(key, "It is zero everywhere.", "Give a probe that carries energy.")
            return None
        return probe

    def object_guess(self) -> ComplexArray | None:
        """(H, W) complex64 of ``objectGuess``, or None."""
        return self.planar("objectGuess")

    def planar(self, key: str) -> ComplexArray | None:
        """(H, W) complex64 of an object under any key."""
        array = self.load(key, kinds="fc", what="a complex array (H, W)")
        if array is None:
            return None
        shape = array.shape
        while array.ndim > 2 and array.shape[0] == 1:
            array = array[0]
        if array.ndim != 2 or 0 in array.shape:
            self.findings.error(
                key, f"It has shape {shape} and dtype {array.dtype}; one layer (H, W) is needed.", "Save one layer."
            )
            return None
        if array.shape != shape:
            self.findings.note(key, f"Shape {shape} is read as {array.shape}.")
        return self._complex64(key, array)

    def patches(self, n: int, size: int) -> ComplexArray | None:
        """(n, N, N) complex64 of ``Y``, or None; complex64 stays memory-mapped."""
        key = "Y"
        array = self.load(key, kinds="fc", what=f"a complex array ({n}, {size}, {size})")
        if array is None:
            return None
        if array.shape != (n, size, size):
            self.findings.error(
                key,
                f"It has shape {array.shape} and dtype {array.dtype}; with {n} patterns of {size} x {size} it must be "
                f"({n}, {size}, {size}).",
                "Give every pattern its patch, or leave Y out.",
            )
            return None
        return self._complex64(key, array)

    def scan_index(self, n: int) -> IntArray | None:
        """(n,) int64 of ``scan_index``; zeros if the key is missing."""
        key = "scan_index"
        if not self.has(key):
            return np.zeros(n, np.int64)
        array = self.load(key, kinds="iuf", what=f"({n},) integers")
        if array is None:
            return None
        if array.shape != (n,):
            self.findings.error(
                key, f"It has shape {array.shape}; with {n} patterns it must be ({n},).", "Give every pattern its scan."
            )
            return None
        with np.errstate(invalid="ignore"):  # beyond int64: then it is not equal
            index = array.astype(np.int64) if np.isfinite(array).all() else None
        if index is None or not np.array_equal(index, array):
            self.findings.error(key, f"It holds {array.dtype} values that are not whole numbers.", "Save integers.")
            return None
        if array.dtype.kind == "f":
            self.findings.note(key, f"{array.dtype} is read as int64.")
        return index

    def bad_pixels(self, size: int) -> BoolArray | None:
        """(N, N) bool of ``bad_pixels``; all False if the key is missing."""
        key = "bad_pixels"
        if not self.has(key):
            return np.zeros((size, size), bool)
        array = self.load(key, kinds="biuf", what=f"({size}, {size}) bool")
        if array is None:
            return None
        if array.shape != (size, size):
            self.findings.error(
                key,
                f"It has shape {array.shape}; the patterns are {size} x {size}.",
                "Give one mask of the size of a pattern.",
            )
            return None
        if not np.isin(array, (0, 1)).all():
            self.findings.error(
                key, f"It holds {array.dtype} values other than 0 and 1.", "Save a mask: True or 1 is a bad pixel."
            )
            return None
        if array.dtype != np.bool_:
            self.findings.note(key, f"{array.dtype} is read as bool; 1 is a bad pixel.")
        mask = array.astype(bool)
        if mask.all():
            self.findings.error(key, "Every pixel is bad.", "True marks bad pixels: is the mask the other way round?")
            return None
        if (share := float(mask[measured_box(mask)].mean())) > 0.5:
            self.findings.warning(
                key,
                f"{share:.0%} of the pixels are bad.",
                "True marks bad pixels: is the mask the other way round?",
                "DATA-063",
            )
        return mask

    def unmeasured(self, n: int, size: int) -> Unmeasured | None:
        """Bad pixels, and the bad values of single patterns."""
        pixels, before = self.bad_pixels(size), len(self.findings.errors)
        found = self.bad_values(n, (size, size))
        if pixels is None or len(self.findings.errors) > before:
            return None
        return Unmeasured(pixels | found.pixels, found.values)

    def bad_values(self, n: int, size: tuple[int, int]) -> Unmeasured:
        """What masks (n, H, W), or offsets and pixels, say is bad; nothing if there are none, or they are refused."""
        nothing = Unmeasured(np.zeros(size, bool))
        if self.has(MASKS_KEY):
            masks = self.load(MASKS_KEY, kinds="biuf", what=f"({n}, {size[0]}, {size[1]}) bool")
            if masks is not None and masks.shape != (n, *size):
                self.findings.error(
                    MASKS_KEY, f"It has shape {masks.shape}; it must be {(n, *size)}.", "Give a mask a pattern."
                )
                return nothing
            return nothing if masks is None else Unmeasured.of_masks(masks)
        if not (self.has(OFFSETS_KEY) or self.has(PIXELS_KEY)):
            return nothing
        offsets, pixels = (
            self.load(key, kinds="iu", what="whole numbers", required=True) for key in (OFFSETS_KEY, PIXELS_KEY)
        )
        if offsets is None or pixels is None:
            return nothing
        try:
            found = BadValues(offsets, pixels, size)
        except DataError as error:
            self.findings.refused(OFFSETS_KEY, error)
            return nothing
        if len(found) != n:
            self.findings.error(
                OFFSETS_KEY, f"It is of {len(found)} patterns; there are {n}.", "Give one offset a pattern and the end."
            )
            return nothing
        rows, at = found.entries(slice(None))
        return Unmeasured(nothing.pixels, BadValues.of_pairs(rows, at, n, size))  # sorted, each once

    def probe_variation(self, n: int, size: int | None = None) -> ProbeVariation | None:
        """`ProbeVariation` of n patterns out of ``probe_variation`` and ``probe_variation_weights``; None without.

        Without ``size`` the modes may have any size.
        """
        if not (self.has(MODES_KEY) or self.has(WEIGHTS_KEY)):
            return None
        modes = self.load(MODES_KEY, kinds="c", what="a complex array (modes, N, N)", required=True)
        weights = self.load(WEIGHTS_KEY, kinds="f", what="real numbers (n, modes)", required=True)
        modes = None if modes is None else self._complex64(MODES_KEY, modes)
        if modes is None or weights is None:
            return None
        found = ProbeVariation(modes, np.asarray(weights, np.float32))
        try:
            found.check(n, (modes.shape or (0,))[-1] if size is None else size)
        except DataError as error:
            self.findings.refused(MODES_KEY, error)
            return None
        return found

    def _complex64(self, key: str, array: AnyArray) -> ComplexArray | None:
        """Convert to finite complex64, checked block by block so that a mapped array stays mapped."""
        if array.dtype != np.complex64:
            real = "a real array, phase zero, " if array.dtype.kind == "f" else ""
            self.findings.note(key, f"{array.dtype} is read as {real}complex64.")
        with np.errstate(over="ignore", invalid="ignore"):
            values: ComplexArray = np.asarray(array, np.complex64)
        wrong = sum(int((~np.isfinite(values[i : i + _BLOCK])).sum()) for i in range(0, len(values), _BLOCK))
        if wrong:
            self.findings.error(
                key,
                f"{wrong} of {values.size} values are not finite (dtype {array.dtype}, shape {array.shape}).",
                "Repair them or leave them out.",
            )
            return None
        return values
