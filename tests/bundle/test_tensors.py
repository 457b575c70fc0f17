"""The tensors of a model archive: specs/08-archive.md."""

import io
import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from bundle_files import WEIGHTS, hdf5, manifest, members, with_tensors
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import ptychopinn.bundle.archive
from ptychopinn.bundle import (
    ArchiveKind,
    read_bundle,
    write_bundle,
)
from ptychopinn.errors import ArchiveError
from ptychopinn.typing import AnyArray


def test_tensors_are_plain_contiguous_datasets(saved: Path) -> None:
    """[ARC-003]"""
    with h5py.File(io.BytesIO(members(saved)["weights.h5"])) as file:
        weight = file["encoder/0/weight"]
        assert (weight.chunks, weight.compression, len(weight.attrs)) == (None, None, 0)
        assert weight.dtype == np.float32


@settings(max_examples=20, deadline=None)
@given(
    array=hnp.arrays(
        st.sampled_from([np.float32, np.complex64]),
        hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
        elements={"allow_nan": False, "allow_infinity": False},
    )
)
def test_every_shape_survives(tmp_path_factory: pytest.TempPathFactory, array: AnyArray) -> None:
    """[ARC-003] [ARC-004]"""
    path = tmp_path_factory.mktemp("bundle") / "m.zip"
    write_bundle(path, manifest(), {"a": array})
    np.testing.assert_array_equal(read_bundle(path).weights["a"], array, strict=True)


@pytest.mark.parametrize("dtype", [np.float64, np.int64, bool, np.float16, "S3", object])
def test_other_dtypes_are_refused_in_a_model(path: Path, dtype: Any) -> None:
    """[ARC-004]"""
    with pytest.raises(ArchiveError, match="the tensor 'a' has the dtype .*float32, complex64"):
        write_bundle(path, manifest(), {"a": np.zeros(2, dtype)})
    assert os.listdir(path.parent) == []


def test_a_checkpoint_holds_numbers_of_every_kind(path: Path) -> None:
    """[ARC-004]"""
    weights = {
        **WEIGHTS,
        "optimizer/0/step": np.int64(12) * np.ones((), np.int64),
        "optimizer/0/mask": np.array([True, False]),
        "random/torch": np.arange(256, dtype=np.uint8),
        "random/numpy": np.array([0.1], np.float64),
    }
    write_bundle(path, manifest(kind=ArchiveKind.CHECKPOINT), weights)
    found = read_bundle(path)
    assert found.manifest.kind is ArchiveKind.CHECKPOINT
    for name, array in weights.items():
        np.testing.assert_array_equal(found.weights[name], array, strict=True)


def test_a_model_with_the_dtypes_of_a_checkpoint_is_refused_on_reading(saved: Path) -> None:
    """[ARC-004]"""
    with_tensors(saved, hdf5(lambda file: file.create_dataset("a", data=np.zeros(2, np.int64))))
    with pytest.raises(ArchiveError, match="the tensor 'a' has the dtype int64"):
        read_bundle(saved)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(saved: Path, value: float) -> None:
    """[ARC-005] Writing and reading."""
    bad = np.array([1, value], np.float32)
    with pytest.raises(ArchiveError, match=r"'a' of shape \(2,\) holds values that are not finite"):
        write_bundle(saved, manifest(), {"a": bad})
    read_bundle(saved)  # the older file is whole
    with_tensors(saved, hdf5(lambda file: file.create_dataset("a", data=bad)))
    with pytest.raises(ArchiveError, match="'a' .* not finite"):
        read_bundle(saved)


def test_figures_of_a_checkpoint_may_be_nan(path: Path) -> None:
    """[ARC-005] No other values of it, and none of a model."""
    figures = {"history/loss": np.array([np.nan, 0.5])}
    write_bundle(path, manifest(kind=ArchiveKind.CHECKPOINT), figures)
    np.testing.assert_array_equal(read_bundle(path).weights["history/loss"], figures["history/loss"])
    for kind, name in ((ArchiveKind.MODEL, "history/loss"), (ArchiveKind.CHECKPOINT, "model/history")):
        with pytest.raises(ArchiveError, match=f"'{name}' .* not finite"):
            write_bundle(path, manifest(kind=kind), {name: np.array([np.nan, 0.5], np.float32)})


@pytest.mark.parametrize("name", ["", "/a", "a/", "a//b", "../a", "a/..", "a b", "ä", "a/.hidden", "x" + "/x" * 16])
def test_names_that_are_not_plain_are_refused(path: Path, name: str) -> None:
    """[ARC-003]"""
    with pytest.raises(ArchiveError, match="tensor name .* not allowed"):
        write_bundle(path, manifest(), {name: np.zeros(1, np.float32)})


def test_a_name_that_is_a_group_too_is_refused(path: Path) -> None:
    """[ARC-003]"""
    zeros = np.zeros(1, np.float32)
    with pytest.raises(ArchiveError, match="'a/b' is also the group"):
        write_bundle(path, manifest(), {"a/b": zeros, "a/b/c/d": zeros})


def test_no_tensors_are_refused(path: Path) -> None:
    with pytest.raises(ArchiveError, match="0 tensors"):
        write_bundle(path, manifest(), {})


def test_tensors_larger_together_than_the_limit_are_refused(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """[ARC-011]"""
    right = ptychopinn.bundle.archive.unpack_weights
    monkeypatch.setattr(ptychopinn.bundle.archive, "unpack_weights", lambda *a, **k: right(*a, **k | {"limit": 100}))
    with pytest.raises(ArchiveError, match="the tensors have 156 bytes. The limit is 100"):
        read_bundle(saved)


def test_an_archive_without_tensors_is_refused(saved: Path) -> None:
    """[ARC-003]"""
    with_tensors(saved, hdf5(lambda file: file.pop("ok")))
    with pytest.raises(ArchiveError, match="holds no tensors"):
        read_bundle(saved)


def soft(file: h5py.File) -> None:
    file["a"] = h5py.SoftLink("/ok")


def external_link(file: h5py.File) -> None:
    file["a"] = h5py.ExternalLink("/etc/passwd", "/")


def cycle(file: h5py.File) -> None:
    group = file.create_group("group")
    group["again"] = group


def twice(file: h5py.File) -> None:
    file["a"] = file["ok"]


def external_storage(file: h5py.File) -> None:
    file.create_dataset("a", (2,), "f4", external=[("/etc/hostname", 0, 8)])


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((2,), "f4")
    layout[:] = h5py.VirtualSource("/tmp/other.h5", "a", (2,))
    file.create_virtual_dataset("a", layout)


def filtered(file: h5py.File) -> None:
    file.create_dataset("a", data=np.zeros(1000, np.float32), compression="gzip")


def chunked(file: h5py.File) -> None:
    file.create_dataset("a", (1000,), "f4", chunks=(10,))


def attributed(file: h5py.File) -> None:
    file["ok"].attrs["note"] = "hello"


def root_attributed(file: h5py.File) -> None:
    file.attrs["note"] = "hello"


def text(file: h5py.File) -> None:
    file["a"] = "hello"


def compound(file: h5py.File) -> None:
    file["a"] = np.zeros(2, [("x", "f4"), ("y", "i4")])


def reference(file: h5py.File) -> None:
    file.create_dataset("a", (1,), h5py.ref_dtype)


def huge(file: h5py.File) -> None:
    file.create_dataset("a", (10**6, 10**6), "f4")


def empty(file: h5py.File) -> None:
    file["a"] = h5py.Empty("f4")


def named_type(file: h5py.File) -> None:
    file["a"] = np.dtype("f4")


def odd_name(file: h5py.File) -> None:
    file["a b"] = np.zeros(1, np.float32)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (soft, "'a' is a link"),
        (external_link, "'a' is a link"),
        (cycle, "'group/again' leads to what was there"),
        (twice, "leads to what was there"),
        (external_storage, "'a' is stored in another file"),
        (virtual, "'a' is not stored in one piece"),
        (filtered, "'a' is stored with a filter"),
        (chunked, "'a' is not stored in one piece"),
        (attributed, "'ok' has attributes"),
        (root_attributed, "come with attributes"),
        (text, "'a' has the dtype .* no number"),
        (compound, "'a' has the dtype .* no number"),
        (reference, "'a' has the dtype .* no number"),
        (huge, "'a' claims more than is stored"),
        (empty, "'a' claims more than is stored"),
        (named_type, "'a' is neither a group nor a dataset"),
        (odd_name, "name 'a b' is not allowed"),
    ],
)
def test_tensors_that_are_no_plain_arrays_are_refused(saved: Path, make: Any, message: str) -> None:
    """[ARC-014]"""
    with_tensors(saved, hdf5(make))
    with pytest.raises(ArchiveError, match=message):
        read_bundle(saved)


@settings(max_examples=40, deadline=None)
@given(position=st.integers(0, 10**6), bits=st.integers(1, 255))
def test_damaged_tensors_never_pass(tmp_path_factory: pytest.TempPathFactory, position: int, bits: int) -> None:
    """[ARC-012] [ARC-014] Rightly signed or not, damage is an ArchiveError or harmless, never another exception."""
    path = tmp_path_factory.mktemp("bundle") / "m.zip"
    write_bundle(path, manifest(), WEIGHTS)
    tensors = bytearray(members(path)["weights.h5"])
    tensors[position % len(tensors)] ^= bits
    with_tensors(path, bytes(tensors))
    try:
        weights = read_bundle(path).weights
    except ArchiveError:
        return
    assert all(array.dtype in (np.float32, np.complex64) for array in weights.values())
