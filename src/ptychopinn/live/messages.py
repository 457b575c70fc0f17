"""The message format (specs/17-streaming.md). A message is a list of byte strings."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import ValidationError

from ptychopinn.data.dataset import Measurement, ScanMetadata
from ptychopinn.live.arrivals import Chunk, Rejection, Setup
from ptychopinn.typing import AnyArray, BoolArray, ComplexArray, FloatArray, IntArray

VERSION = 1
_MAX_HEADER_BYTES = 1 << 16
_MAX_BYTES = 1 << 30  # of one message
_DTYPES = frozenset(["|u1", "<u2", "<u4", "<u8", "|i1", "<i2", "<i4", "<i8", "<f4", "<f8"])


class End:
    """The end of a stream."""


def pack_setup(
    probe: ComplexArray | None = None,
    bad_pixels: BoolArray | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> list[bytes]:
    """Make a setup message.

    Parameters
    ----------
    probe:
        (modes, N, N) complex, or None.
    bad_pixels:
        (N, N) bool, or None.
    metadata:
        As ``_metadata`` of a scan file.
    """
    header: dict[str, Any] = {
        "kind": "setup",
        "metadata": dict(metadata or {}),
        "N": 0,
        "modes": 0,
        "bad_pixels": False,
    }
    parts = []
    if probe is not None:
        header |= {"modes": len(probe), "N": probe.shape[-1]}
        parts.append(np.ascontiguousarray(probe, "<c8").tobytes())
    if bad_pixels is not None:
        header |= {"bad_pixels": True, "N": bad_pixels.shape[-1]}
        parts.append(np.ascontiguousarray(bad_pixels, np.uint8).tobytes())
    return [_header(header), *parts]


def pack_patterns(
    indices: IntArray,
    positions: FloatArray,
    patterns: AnyArray,
    measurement: Measurement | str = Measurement.COUNTS,
    sent: float | None = None,
) -> list[bytes]:
    """Make a message with patterns; arguments as in `ptychopinn.live.arrivals.Chunk`."""
    patterns = np.asarray(patterns)
    little = patterns.dtype.newbyteorder("<")
    header = {
        "kind": "patterns",
        "count": len(patterns),
        "N": patterns.shape[-1],
        "dtype": little.str,
        "measurement": str(measurement),
        "sent": sent,
    }
    return [
        _header(header),
        np.ascontiguousarray(indices, "<i8").tobytes(),
        np.ascontiguousarray(positions, "<f8").tobytes(),
        np.ascontiguousarray(patterns, little).tobytes(),
    ]


def pack_end() -> list[bytes]:
    """Make the message that ends a stream."""
    return [_header({"kind": "end"})]


def _header(values: Mapping[str, Any]) -> bytes:
    return json.dumps({"ptychopinn": VERSION, **values}).encode()


def unpack(parts: Sequence[bytes]) -> Setup | Chunk | End | Rejection:
    """Parse a message. Never raises: messages that violate the format are `Rejection`."""
    try:
        return _unpack(parts)
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError) as error:
        reason = f"{type(error).__name__}: {error}" if isinstance(error, KeyError) else str(error)
        return Rejection(f"A message violates the format: {reason[:300]}.")


def _unpack(parts: Sequence[bytes]) -> Setup | Chunk | End | Rejection:
    if not parts or len(parts[0]) > _MAX_HEADER_BYTES or sum(map(len, parts)) > _MAX_BYTES:
        raise ValueError("it is empty or too large")
    header = json.loads(parts[0])
    if not isinstance(header, dict) or header.get("ptychopinn") != VERSION:
        raise ValueError(f"its first part is not a header of version {VERSION}")
    kind = header.get("kind")
    if kind == "end":
        return End()
    if kind == "patterns":
        return _patterns(header, parts[1:])
    if kind == "setup":
        return _setup(header, parts[1:])
    raise ValueError(f"it is of the kind {str(kind)[:40]!r}")


def _patterns(header: Mapping[str, Any], parts: Sequence[bytes]) -> Chunk:
    count, size, dtype = _whole(header, "count"), _whole(header, "N"), header["dtype"]
    if dtype not in _DTYPES:
        raise ValueError(f"the dtype {str(dtype)[:40]!r} is none of {', '.join(sorted(_DTYPES))}")
    if len(parts) != 3:
        raise ValueError(f"it has {len(parts)} parts after the header; indices, positions and patterns are needed")
    sent = header.get("sent")
    if sent is not None and not (isinstance(sent, int | float) and math.isfinite(sent)):
        raise ValueError(f"'sent' is {str(sent)[:40]!r}")
    return Chunk(
        indices=_array(parts[0], "<i8", (count,), "indices").astype(np.int64),
        positions=_array(parts[1], "<f8", (count, 2), "positions").astype(np.float64),
        patterns=_array(parts[2], dtype, (count, size, size), "patterns"),
        measurement=Measurement(header["measurement"]),
        sent=sent,
    )


def _setup(header: Mapping[str, Any], parts: Sequence[bytes]) -> Setup:
    size, modes = _whole(header, "N"), _whole(header, "modes")
    left = list(parts)
    probe = bad = None
    if modes:
        probe = _array(left.pop(0) if left else b"", "<c8", (modes, size, size), "probe").astype(np.complex64)
        if not (np.isfinite(probe).all() and probe.any()):
            raise ValueError("the probe is not finite, or zero")
    if header.get("bad_pixels"):
        bad = _array(left.pop(0) if left else b"", "|u1", (size, size), "bad_pixels") != 0
        if bad.all():
            raise ValueError("every pixel is bad")
    if left:
        raise ValueError(f"it has {len(left)} surplus parts")
    try:
        metadata = ScanMetadata(**header.get("metadata", {}))
    except ValidationError as error:
        raise ValueError(f"its metadata do not fit: {error.errors()[0]['msg']}") from error
    return Setup(probe, bad, metadata)


def _whole(header: Mapping[str, Any], name: str) -> int:
    value = header[name]
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 2**20:
        raise ValueError(f"'{name}' is {str(value)[:40]!r}")
    return value


def _array(data: bytes, dtype: str, shape: tuple[int, ...], name: str) -> AnyArray:
    needed = math.prod(shape) * np.dtype(dtype).itemsize
    if len(data) != needed:
        raise ValueError(f"{name} of shape {shape} and dtype {dtype} need {needed} bytes, but {len(data)} arrived")
    array: AnyArray = np.frombuffer(data, dtype).reshape(shape)
    return array
