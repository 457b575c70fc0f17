"""The model archive as a file: specs/08-archive.md."""

import os
import pickle
import stat
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundle_files import WEIGHTS, manifest, members, rezip, with_manifest, with_tensors

import ptychopinn.bundle.archive
from ptychopinn.bundle import (
    ScalingRule,
    read_bundle,
    verify_bundle,
    write_bundle,
)
from ptychopinn.errors import ArchiveError, ResourceError, UsageError


def test_what_was_written_is_read(saved: Path) -> None:
    """[ARC-001] [ARC-002] [ARC-003]"""
    assert sorted(members(saved)) == ["manifest.json", "weights.h5"]
    bundle = read_bundle(saved)
    assert bundle.manifest.model_dump(exclude={"sha256"}) == manifest().model_dump(exclude={"sha256"})
    assert bundle.manifest.scaling is ScalingRule.MEAN_COUNTS
    assert bundle.weights.keys() == WEIGHTS.keys()
    for name, array in WEIGHTS.items():
        np.testing.assert_array_equal(bundle.weights[name], array, strict=True)


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


def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    """[ARC-006] Whatever the order of the tensors."""
    write_bundle(tmp_path / "a", manifest(), WEIGHTS)
    write_bundle(tmp_path / "b", manifest(), dict(reversed(WEIGHTS.items())))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


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
