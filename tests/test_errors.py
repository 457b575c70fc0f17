"""The error tree: specs/07-reconstructor.md, errors."""

import pickle

import pytest

from ptychopinn import errors


def test_an_error_carries_problem_and_remedy() -> None:
    """[ERR-001]"""
    error = errors.DataError("The key 'diffraction' is missing.", "Run convert.")
    assert str(error) == "The key 'diffraction' is missing. Run convert."
    assert (error.problem, error.remedy) == ("The key 'diffraction' is missing.", "Run convert.")


def test_an_error_without_remedy_has_no_trailing_blank() -> None:
    """[ERR-001]"""
    assert str(errors.PluginError("It is broken.")) == "It is broken."


def test_errors_survive_pickling_whole() -> None:
    """[ERR-001] Worker processes raise them, too."""
    back = pickle.loads(pickle.dumps(errors.ResourceError("The disk is full.", "Free some space.")))
    assert type(back) is errors.ResourceError
    assert (back.problem, back.remedy) == ("The disk is full.", "Free some space.")


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.PtychoPinnError, 1),
        (errors.PluginError, 1),
        (errors.TrainingError, 1),
        (errors.UsageError, 2),
        (errors.ConfigError, 2),
        (errors.DataError, 3),
        (errors.ArchiveError, 3),
        (errors.ResourceError, 4),
        (errors.Cancelled, 130),
    ],
)
def test_the_class_gives_the_exit_code(kind: type[errors.PtychoPinnError], code: int) -> None:
    """[ERR-002]"""
    assert issubclass(kind, errors.PtychoPinnError)
    assert kind("x").exit_code == code
