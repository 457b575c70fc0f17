"""Files written aside and renamed."""

import errno
import os
from pathlib import Path

import pytest

from ptychopinn.atomic import atomic_write, read_record, write_csv, write_json
from ptychopinn.errors import ResourceError, UsageError


def test_the_target_changes_at_once_and_nothing_else_is_left(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    with atomic_write(target) as temporary:
        temporary.write_text("new")
        assert target.read_text() == "old"
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".txt"
    assert target.read_text() == "new"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(RuntimeError, match="halfway"), atomic_write(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError("halfway")
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    real, link = tmp_path / "real.txt", tmp_path / "link.txt"
    real.write_text("old")
    link.symlink_to(real)
    with atomic_write(link) as temporary:
        temporary.write_text("new")
    assert link.is_symlink()
    assert real.read_text() == "new"


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nowhere does not exist"), atomic_write(tmp_path / "nowhere" / "a.txt"):
        pass


def test_a_folder_in_the_place_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a folder"), atomic_write(tmp_path):
        pass


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_what_the_disk_refuses_is_a_resource_error(tmp_path: Path, number: int) -> None:
    target = tmp_path / "a.txt"
    with pytest.raises(ResourceError, match=r"a\.txt could not be written"), atomic_write(target) as temporary:
        temporary.write_text("half")
        raise OSError(number, os.strerror(number))
    assert os.listdir(tmp_path) == []


def test_other_failures_of_the_system_pass_through(tmp_path: Path) -> None:
    with pytest.raises(InterruptedError), atomic_write(tmp_path / "a.txt"):
        raise OSError(errno.EINTR, "interrupted")


def test_a_table_has_names_that_python_could_not_decode(tmp_path: Path) -> None:
    """[RUN-004] As names of files are with LC_ALL=C: what is UTF-8 is written as it is, the rest is escaped."""
    names = [os.fsencode("µ").decode("ascii", "surrogateescape"), "\udcff", "\ud800"]
    write_csv(tmp_path / "table.csv", ["name"], [[name] for name in names])
    assert (tmp_path / "table.csv").read_text("utf-8").split() == ["name", "µ", "\\udcff", "\\ud800"]


@pytest.mark.parametrize("content", [None, b"", b"{", b"[1]", b"\xff\xfe"])
def test_a_record_that_cannot_be_read_is_empty(tmp_path: Path, content: bytes | None) -> None:
    path = write_json(tmp_path / "record.json", {"key": "a"})
    assert read_record(path) == {"key": "a"}
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    assert read_record(path) == {}
