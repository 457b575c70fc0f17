"""The model archive: specs/08-archive.md."""

import hashlib
import io
import json
import os
import pickle
import stat
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import ptychopinn.bundle.archive
from ptychopinn.bundle import (
    ArchiveKind,
    Manifest,
    ScalingRule,
    TrainingSummary,
    Writer,
    read_bundle,
    read_manifest,
    verify_bundle,
    write_bundle,
)
from ptychopinn.config import ModelConfig
from ptychopinn.errors import ArchiveError, ResourceError, UsageError
from ptychopinn.typing import AnyArray

WEIGHTS: Mapping[str, AnyArray] = {
    "encoder/0/weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "encoder/0/bias": np.float32(3) * np.ones((), np.float32),
    "probe/initial": np.full((1, 4, 4), 1 + 2j, np.complex64),
}


def manifest(**changes: Any) -> Manifest:
    return Manifest(
        writer=Writer(ptychopinn="0.1.0", backend="torch", backend_version="0.1.0"),
        model=ModelConfig(N=64, gridsize=2),
        training=TrainingSummary(status="finished", epochs=3, seconds=1.5, figures={"loss": 0.25}),
        extra={"detector_offset_px": [0.5, -1.0], "note": None},
        **changes,
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "wts.h5.zip"


@pytest.fixture
def saved(path: Path) -> Path:
    write_bundle(path, manifest(), WEIGHTS)
    return path


def members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def rezip(path: Path, content: Mapping[str, bytes], compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in content.items():
            archive.writestr(name, data)


def with_manifest(path: Path, **changes: Any) -> None:
    """The archive with other values in its manifest."""
    content = members(path)
    content["manifest.json"] = json.dumps(json.loads(content["manifest.json"]) | changes).encode()
    rezip(path, content)


def with_tensors(path: Path, tensors: bytes, **changes: Any) -> None:
    """The archive with other tensors, rightly signed: what a stranger could send."""
    rezip(path, {"manifest.json": members(path)["manifest.json"], "weights.h5": tensors})
    with_manifest(path, sha256={"weights.h5": hashlib.sha256(tensors).hexdigest()}, **changes)


def hdf5(make: Any) -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file["ok"] = np.zeros(2, np.float32)
        make(file)
    return buffer.getvalue()


def test_what_was_written_is_read(saved: Path) -> None:
    """[ARC-001] [ARC-002] [ARC-003]"""
    assert sorted(members(saved)) == ["manifest.json", "weights.h5"]
    bundle = read_bundle(saved)
    assert bundle.manifest.model_dump(exclude={"sha256"}) == manifest().model_dump(exclude={"sha256"})
    assert bundle.manifest.scaling is ScalingRule.MEAN_COUNTS
    assert bundle.weights.keys() == WEIGHTS.keys()
    for name, array in WEIGHTS.items():
        np.testing.assert_array_equal(bundle.weights[name], array, strict=True)


def test_the_manifest_is_read_without_the_tensors(saved: Path) -> None:
    """[ARC-002]"""
    content = members(saved)
    rezip(saved, content | {"weights.h5": b"damaged"})
    assert read_manifest(saved).writer.backend == "torch"
    rezip(saved, content | {"other": b""})
    with pytest.raises(ArchiveError, match="unexpected member"):
        read_manifest(saved)


def test_the_manifest_is_json_with_the_documented_keys(saved: Path) -> None:
    """[ARC-002]"""
    raw = json.loads(members(saved)["manifest.json"])
    assert set(raw) == {"format_version", "kind", "writer", "model", "scaling", "training", "extra", "sha256"}
    assert raw["format_version"] == 1
    assert raw["writer"] == {"ptychopinn": "0.1.0", "backend": "torch", "backend_version": "0.1.0"}
    assert set(raw["model"]) == set(ModelConfig.model_fields)
    assert raw["sha256"] == {"weights.h5": hashlib.sha256(members(saved)["weights.h5"]).hexdigest()}


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


@pytest.mark.parametrize("member", ["manifest.json", "weights.h5"])
def test_damage_inside_a_deflated_member_is_told(saved: Path, member: str) -> None:
    """[ARC-010] Packed again by another program, then damaged."""
    with zipfile.ZipFile(saved) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(saved, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
        start = archive.getinfo(member).header_offset + 30 + len(member)
        stop = start + archive.getinfo(member).compress_size
    whole = saved.read_bytes()
    for place in range(start, stop, max((stop - start) // 20, 1)):
        saved.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        with pytest.raises(ArchiveError, match="(?i)copy or save"):
            read_bundle(saved)


def test_extra_that_is_not_finite_is_refused(path: Path) -> None:
    """[ARC-005]"""
    bad = manifest().model_copy(update={"extra": {"scale": float("nan")}})
    with pytest.raises(ArchiveError, match="cannot be written as JSON"):
        write_bundle(path, bad, WEIGHTS)


def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    """[ARC-006] Whatever the order of the tensors."""
    write_bundle(tmp_path / "a", manifest(), WEIGHTS)
    write_bundle(tmp_path / "b", manifest(), dict(reversed(WEIGHTS.items())))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


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


def test_a_failed_save_leaves_the_old_file_alone(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """[ARC-007]"""
    before = saved.read_bytes()

    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "writestr", full)
    with pytest.raises(ResourceError, match="No space left"):
        write_bundle(saved, manifest(), {"other": np.ones(3, np.float32)})
    assert saved.read_bytes() == before
    assert os.listdir(saved.parent) == [saved.name]


def test_a_save_is_read_back_before_it_gets_its_name(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """[ARC-008] A disk that writes something else does not cost the old file."""
    before = saved.read_bytes()
    archive = ptychopinn.bundle.archive
    right = archive.pack_weights
    monkeypatch.setattr(
        archive, "pack_weights", lambda w, **kw: right({n: a + a.dtype.type(1) for n, a in w.items()}, **kw)
    )
    with pytest.raises(ArchiveError, match="does not read back"):
        write_bundle(saved, manifest(), WEIGHTS)
    assert saved.read_bytes() == before
    assert os.listdir(saved.parent) == [saved.name]


def test_verification_sees_another_manifest(saved: Path) -> None:
    """[ARC-008]"""
    verify_bundle(saved, read_bundle(saved).manifest, WEIGHTS)
    with pytest.raises(ArchiveError, match="does not read back"):
        verify_bundle(saved, manifest(), WEIGHTS)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """[ARC-007]"""
    with pytest.raises(UsageError, match="does not exist"):
        write_bundle(tmp_path / "no" / "m.zip", manifest(), WEIGHTS)


class Evil:
    """Runs when it is unpickled."""

    def __reduce__(self) -> Any:
        return print, ("it ran",)


def test_a_pickle_in_the_place_of_tensors_does_not_run(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """[ARC-009]"""
    with_tensors(saved, pickle.dumps(Evil()))
    with pytest.raises(ArchiveError, match="tensors cannot be read"):
        read_bundle(saved)
    assert capsys.readouterr().out == ""


def test_the_sources_name_no_pickle() -> None:
    """[ARC-009]"""
    for source in Path(ptychopinn.bundle.archive.__file__).parent.glob("*.py"):
        assert not any(
            word in source.read_text() for word in ("import pickle", "import dill", "import marshal", "eval(")
        )


def test_a_missing_file_is_named(path: Path) -> None:
    """[ARC-010]"""
    with pytest.raises(ArchiveError, match=r"model archive .*wts\.h5\.zip is not there"):
        read_bundle(path)


def test_a_file_that_is_no_zip_is_refused(path: Path) -> None:
    """[ARC-010]"""
    path.write_bytes(b"not a zip at all")
    with pytest.raises(ArchiveError, match="not a whole model archive"):
        read_bundle(path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_an_archive_cut_short_is_refused(saved: Path, share: float) -> None:
    """[ARC-010]"""
    content = saved.read_bytes()
    saved.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ArchiveError, match=r"truncated: copy or save it again"):
        read_bundle(saved)


@pytest.mark.parametrize("missing", ["manifest.json", "weights.h5"])
def test_missing_members_are_named(saved: Path, missing: str) -> None:
    """[ARC-010]"""
    rezip(saved, {name: data for name, data in members(saved).items() if name != missing})
    with pytest.raises(ArchiveError, match=f"no model archive: {missing} missing"):
        read_bundle(saved)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("model.pkl", "unexpected member 'model.pkl'"),
        ("../evil.py", "'../evil.py', which points outside"),
        ("/etc/evil", "'/etc/evil', which points outside"),
        ("a\\..\\b", "points outside"),
        ("C:evil", "points outside"),
        ("folder/", "unexpected member 'folder/'"),
    ],
)
def test_unexpected_members_are_refused(saved: Path, name: str, message: str) -> None:
    """[ARC-011]"""
    rezip(saved, members(saved) | {name: b""})
    with pytest.raises(ArchiveError, match=message.replace("\\", "\\\\")):
        read_bundle(saved)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_that_comes_twice_is_refused(saved: Path) -> None:
    """[ARC-011]"""
    with zipfile.ZipFile(saved, "a") as archive:
        archive.writestr("manifest.json", "{}")
    with pytest.raises(ArchiveError, match="'manifest.json' more than once"):
        read_bundle(saved)


def test_a_link_is_refused(saved: Path) -> None:
    """[ARC-011]"""
    content = members(saved)
    with zipfile.ZipFile(saved, "w") as archive:
        archive.writestr("manifest.json", content["manifest.json"])
        link = zipfile.ZipInfo("weights.h5")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(ArchiveError, match="'weights.h5' is a link"):
        read_bundle(saved)


def test_a_bomb_is_refused_before_it_is_unpacked(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """[ARC-011]"""
    rezip(saved, members(saved) | {"weights.h5": bytes(10**7)}, zipfile.ZIP_DEFLATED)
    monkeypatch.setattr(zipfile.ZipFile, "read", lambda *a: pytest.fail("it was unpacked"))
    with pytest.raises(ArchiveError, match="to 10,000,000 bytes"):
        read_bundle(saved)


def test_a_manifest_too_large_is_refused(saved: Path) -> None:
    """[ARC-011]"""
    rezip(saved, members(saved) | {"manifest.json": os.urandom(5 * 2**20)})
    with pytest.raises(ArchiveError, match=r"'manifest\.json' unpacks"):
        read_bundle(saved)


def test_an_extra_too_large_is_refused_on_writing(path: Path) -> None:
    """[ARC-011]"""
    large = manifest().model_copy(update={"extra": {"a": "x" * 5 * 2**20}})
    with pytest.raises(ArchiveError, match=r"manifest\.json would have"):
        write_bundle(path, large, WEIGHTS)


def test_an_honestly_packed_archive_is_read(saved: Path) -> None:
    """[ARC-011] Zipped again by hand, say."""
    rezip(saved, members(saved), zipfile.ZIP_DEFLATED)
    assert read_bundle(saved).weights.keys() == WEIGHTS.keys()


def test_a_strangely_packed_member_is_refused(saved: Path) -> None:
    """[ARC-011]"""
    rezip(saved, members(saved), zipfile.ZIP_LZMA)
    with pytest.raises(ArchiveError, match="packed with method 14"):
        read_bundle(saved)


def test_an_encrypted_member_is_refused(saved: Path) -> None:
    """[ARC-011]"""
    content = bytearray(saved.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1  # its entry in the central directory says that it is
    saved.write_bytes(content)
    with pytest.raises(ArchiveError, match="'manifest.json' is encrypted"):
        read_bundle(saved)


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


def test_a_wrong_digest_is_refused(saved: Path) -> None:
    """[ARC-012]"""
    with_manifest(saved, sha256={"weights.h5": "0" * 64})
    with pytest.raises(ArchiveError, match=r"the manifest says 000000000000.*altered"):
        read_bundle(saved)


@pytest.mark.parametrize("digests", [{}, {"weights.h5": None, "other": "0"}])
def test_missing_or_odd_digests_are_refused(saved: Path, digests: Any) -> None:
    """[ARC-012]"""
    with_manifest(saved, sha256=digests)
    with pytest.raises(ArchiveError):
        read_bundle(saved)


def test_a_newer_format_names_its_writer(saved: Path) -> None:
    """[ARC-013] Before anything else of the manifest is looked at."""
    with_manifest(saved, format_version=7, model={"what": "nobody knows"})
    with pytest.raises(
        ArchiveError, match=r"format 7, written by ptychopinn 0\.1\.0 with the backend torch.*newer ptychopinn"
    ):
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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"{", "is not JSON"),
        (b'{"format_version": 1, "format_version": 1}', "the key 'format_version' is given twice"),
        (b"[" * 100_000, "is not JSON"),
        (b"[]", "not valid at ''.*should be a valid dictionary"),
        (b"\xff\xfe", "is not JSON"),
    ],
)
def test_a_manifest_that_does_not_parse_is_refused(saved: Path, text: bytes, message: str) -> None:
    """[ARC-015]"""
    rezip(saved, members(saved) | {"manifest.json": text})
    with pytest.raises(ArchiveError, match=message):
        read_bundle(saved)


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"model": {"N": 63}}, "model.N"),
        ({"model": {"depth": 3}}, "model.depth"),
        ({"format_version": 0}, "format_version"),
        ({"kind": "recipe"}, "kind"),
        ({"scaling": "by-eye"}, "scaling"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_manifest_that_does_not_fit_names_the_place(saved: Path, changes: dict[str, Any], place: str) -> None:
    """[ARC-015]"""
    with_manifest(saved, **changes)
    with pytest.raises(ArchiveError, match=rf"torch 0\.1\.0, is not valid at '{place}'"):
        read_bundle(saved)
