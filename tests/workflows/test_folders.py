"""Run directories: what may be written where. Requirements: specs/09-command-line.md."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from ptychopinn.errors import PtychoPinnError, ResourceError, UsageError
from ptychopinn.workflows.folders import RUN as KIND
from ptychopinn.workflows.folders import FolderKind, model_path, output_folder, run_folder, run_log

RUN = ("config.yaml", "wts.h5.zip", "run.log", "reconstruction.h5", "phase.png")


def fill(folder: Path, *names: str) -> None:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_text(f"old {name}")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def make(folder: Path, kind: FolderKind = KIND, **how: bool) -> None:
    with output_folder(folder, kind, **how) as found:
        assert found == folder
        assert found.is_dir()


def test_a_directory_is_made_with_its_parents(tmp_path: Path) -> None:
    with output_folder(tmp_path / "a" / "b", KIND) as folder:
        fill(folder, "config.yaml")
    assert names(tmp_path / "a" / "b") == ["config.yaml"]


def test_an_empty_directory_is_used(tmp_path: Path) -> None:
    make(tmp_path)
    assert tmp_path.is_dir()


def test_a_directory_in_use_is_refused(tmp_path: Path) -> None:
    """[CLI-015]"""
    fill(tmp_path, *RUN)
    with pytest.raises(UsageError, match=r"is there and not empty.*--overwrite.*--resume"):
        make(tmp_path)
    assert names(tmp_path) == sorted(RUN)


def test_overwrite_removes_a_run_whole(tmp_path: Path) -> None:
    """[CLI-015]"""
    fill(tmp_path, *RUN, "mlflow.db")
    for name in ("checkpoints", "csv", "tensorboard"):
        fill(tmp_path / name, "inside")
    make(tmp_path, overwrite=True)
    assert names(tmp_path) == []


@pytest.mark.parametrize("foreign", ["thesis.tex", "data.npz", "csv"])
def test_overwrite_leaves_other_peoples_files(tmp_path: Path, foreign: str) -> None:
    """A plain file called csv is none of a run's folders either."""
    fill(tmp_path, *RUN, foreign)
    with pytest.raises(UsageError, match=f"files that no run wrote: {foreign}"):
        make(tmp_path, overwrite=True)
    assert names(tmp_path) == sorted((*RUN, foreign))


def test_overwrite_does_not_follow_links(tmp_path: Path) -> None:
    fill(tmp_path / "elsewhere", "precious")
    fill(tmp_path / "run", *RUN)
    (tmp_path / "run" / "checkpoints").symlink_to(tmp_path / "elsewhere")
    make(tmp_path / "run", overwrite=True)
    assert names(tmp_path / "run") == []
    assert names(tmp_path / "elsewhere") == ["precious"]


def test_resume_leaves_everything(tmp_path: Path) -> None:
    """[CLI-015]"""
    fill(tmp_path, *RUN, "notes.txt")
    make(tmp_path, resume=True)
    assert names(tmp_path) == sorted((*RUN, "notes.txt"))


def test_a_file_in_the_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(UsageError, match="is a file"):
            make(tmp_path / "file", overwrite=overwrite)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_directory_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ResourceError, match="cannot be made"):
        make(tmp_path / "file" / "below")


def test_the_log_of_a_run_goes_into_its_directory(tmp_path: Path) -> None:
    logger = logging.getLogger("ptychopinn")
    before = (logger.level, list(logger.handlers))
    with run_log(tmp_path):
        logging.getLogger("ptychopinn.some.part").info("something happened")
        logging.getLogger("another").warning("not ours")
    logging.getLogger("ptychopinn.some.part").warning("afterwards")
    assert (logger.level, list(logger.handlers)) == before
    text = (tmp_path / "run.log").read_text()
    assert "INFO ptychopinn.some.part: something happened" in text
    assert "not ours" not in text
    assert "afterwards" not in text


def test_a_run_that_fails_at_once_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(PtychoPinnError), run_folder(tmp_path / "new", keep=["wts.h5.zip"]) as folder:
        fill(folder, "config.yaml")
        raise PtychoPinnError("no")
    assert not (tmp_path / "new").exists()
    (tmp_path / "empty").mkdir()
    with pytest.raises(KeyboardInterrupt), run_folder(tmp_path / "empty"):
        raise KeyboardInterrupt
    assert names(tmp_path / "empty") == []


def test_a_run_that_fails_late_leaves_what_is_worth_keeping(tmp_path: Path) -> None:
    with pytest.raises(PtychoPinnError), run_folder(tmp_path / "run", keep=["wts.h5.zip"]) as folder:
        fill(folder, "config.yaml", "wts.h5.zip")
        raise PtychoPinnError("no")
    assert names(tmp_path / "run") == ["config.yaml", "run.log", "wts.h5.zip"]
    with pytest.raises(PtychoPinnError), run_folder(tmp_path / "run", resume=True) as folder:
        raise PtychoPinnError("no")
    assert "wts.h5.zip" in names(tmp_path / "run")


OTHER = FolderKind(
    "thing", frozenset({"thing.json", "parts"}), keep=("parts/*/done",), marker="thing.json", creates_on_resume=True
)


def test_another_kind_of_directory(tmp_path: Path) -> None:
    """[HARD-013] [CLI-015] Its own names go, nobody else's; going on in nothing begins it where the kind says so."""
    make(tmp_path / "new", OTHER, resume=True)
    fill(tmp_path / "run", *RUN)
    for how in ({"overwrite": True}, {"resume": True}, {}):
        with pytest.raises(UsageError, match="that no thing wrote|no thing to resume|not empty"):
            make(tmp_path / "run", OTHER, **how)
    assert names(tmp_path / "run") == sorted(RUN)
    fill(tmp_path / "one", "thing.json")
    with pytest.raises(PtychoPinnError), output_folder(tmp_path / "one", OTHER, overwrite=True) as folder:
        (folder / "parts" / "a").mkdir(parents=True)
        raise PtychoPinnError("no")
    assert names(tmp_path / "one") == ["thing.json"]
    with (
        pytest.raises(PtychoPinnError),
        output_folder(tmp_path / "one", OTHER, overwrite=True, keep=OTHER.keep) as folder,
    ):
        fill(folder / "parts")
        fill(folder / "parts" / "a", "done")
        raise PtychoPinnError("no")
    assert names(tmp_path / "one") == ["parts"]


def test_a_killed_run_is_not_settled_as_another_kind(tmp_path: Path) -> None:
    """[HARD-013] What it was to replace waits for a run."""
    fill(tmp_path, "config.yaml")
    fill(tmp_path / ".replaced", *RUN)
    for how in ({}, {"overwrite": True}, {"resume": True}):
        with pytest.raises(UsageError):
            make(tmp_path, OTHER, **how)
    assert names(tmp_path) == [".replaced", "config.yaml"]
    with run_folder(tmp_path, resume=True):
        pass
    assert set(RUN) <= set(names(tmp_path))


def test_the_model_of_a_run_or_of_a_file(tmp_path: Path) -> None:
    """[CLI-021]"""
    fill(tmp_path, "wts.h5.zip", "other.zip")
    assert model_path(tmp_path) == model_path(tmp_path / "wts.h5.zip") == tmp_path / "wts.h5.zip"
    assert model_path(tmp_path / "other.zip") == tmp_path / "other.zip"
    for missing in (tmp_path / "none.zip", tmp_path / "none"):
        with pytest.raises(UsageError, match=f"model {missing} is not there"):
            model_path(missing)
