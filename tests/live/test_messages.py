"""The format on the wire: specs/17-streaming.md."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptychopinn.data.dataset import Measurement
from ptychopinn.live import Chunk, Rejection, Setup
from ptychopinn.live.messages import End, pack_end, pack_patterns, pack_setup, unpack

INDICES, POSITIONS = np.array([4, 2]), np.array([[1.5, 2.0], [3.0, -4.5]])
PATTERNS = np.arange(2 * 32 * 32, dtype=np.uint16).reshape(2, 32, 32)


@pytest.mark.parametrize("dtype", ["u1", "<u2", ">u2", "<u4", "<i4", "<f4", ">f8"])
def test_patterns_come_back(dtype: str) -> None:
    """[STREAM-020]"""
    sent = (PATTERNS % 200).astype(dtype)
    chunk = unpack(pack_patterns(INDICES, POSITIONS, sent, "counts", sent=12.5))
    assert isinstance(chunk, Chunk)
    np.testing.assert_array_equal(chunk.patterns, sent)
    np.testing.assert_array_equal(chunk.indices, INDICES)
    np.testing.assert_array_equal(chunk.positions, POSITIONS)
    assert (chunk.measurement, chunk.sent) == (Measurement.COUNTS, 12.5)


def test_the_setup_and_the_end_come_back() -> None:
    """[STREAM-020] and [STREAM-007]"""
    probe = np.full((2, 32, 32), 1 + 2j, np.complex64)
    bad = np.eye(32, dtype=bool)
    setup = unpack(pack_setup(probe, bad, {"pixel_size_m": 1e-8}))
    assert isinstance(setup, Setup)
    assert setup.probe is not None
    assert setup.bad_pixels is not None
    np.testing.assert_array_equal(setup.probe, probe)
    np.testing.assert_array_equal(setup.bad_pixels, bad)
    assert setup.metadata.pixel_size_m == 1e-8
    empty = unpack(pack_setup())
    assert isinstance(empty, Setup)
    assert empty.probe is None
    assert isinstance(unpack(pack_end()), End)


def altered(**changes: object) -> list[bytes]:
    header, *parts = pack_patterns(INDICES, POSITIONS, PATTERNS)
    return [json.dumps(json.loads(header) | changes).encode(), *parts]


good = pack_patterns(INDICES, POSITIONS, PATTERNS)


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [b""],
        [b"{"],
        [b"[]"],
        [b"\xff\xfe"],
        [b"[" * 60000],
        [b" " * 70000],
        good[:1],
        good[:3],
        [*good, b""],
        [*good[:3], good[3][:-1]],
        [good[0], good[1][:-8], *good[2:]],
        altered(ptychopinn=2),
        altered(kind="other"),
        altered(kind=["patterns"]),
        altered(count=3),
        altered(count=-2),
        altered(count=1e9),
        altered(count=2**40),
        altered(N="64"),
        altered(N=True),
        altered(dtype="|O"),
        altered(dtype="O"),
        altered(dtype=None),
        altered(dtype="<c8"),
        altered(measurement="photons"),
        altered(measurement=None),
        altered(sent="now"),
        altered(sent=float("nan")),
        [pack_setup(np.ones((1, 8, 8)))[0]],
        [pack_setup(np.ones((1, 8, 8)))[0], b"1234"],
        pack_setup(np.full((1, 8, 8), np.nan)),
        pack_setup(np.zeros((1, 8, 8))),
        pack_setup(bad_pixels=np.ones((8, 8), bool)),
        [*pack_setup(), b"more"],
        pack_setup(metadata={"pixel_size_m": -1}),
        pack_setup(metadata={"pixel_size_m": "wide"}),
    ],
)
def test_what_is_not_to_the_format_is_refused(parts: list[bytes]) -> None:
    """[STREAM-004]"""
    said = unpack(parts)
    assert isinstance(said, Rejection)
    assert len(said.reason) < 400


@settings(max_examples=100, deadline=None)
@given(
    parts=st.lists(st.binary(max_size=60), max_size=4),
    header=st.dictionaries(
        st.sampled_from(
            ["ptychopinn", "kind", "count", "N", "modes", "dtype", "measurement", "metadata", "bad_pixels"]
        ),
        st.one_of(st.sampled_from([1, 2, "patterns", "setup", "end", "<u2", "counts"]), st.none(), st.integers()),
    ),
)
def test_no_message_raises(parts: list[bytes], header: dict[str, object]) -> None:
    """[STREAM-004]"""
    unpack(parts)
    unpack([json.dumps({"ptychopinn": 1, **header}).encode(), *parts])
