"""The errors of this software. Each says what was wrong, what was received, and the remedy.

Each class has its own exit code on the command line, so that scripts can tell a bad file from a full disk.
"""

from __future__ import annotations

from typing import Any


class PtychoPinnError(Exception):
    """Base of every error this software raises on purpose.

    Two sentences: the problem says what was wrong, and what was received; the remedy says what to do about it.
    """

    exit_code = 1

    def __init__(self, problem: str, remedy: str = "") -> None:
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"{problem} {remedy}".strip())

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.problem, self.remedy)


class UsageError(PtychoPinnError):
    """The request contradicts itself or names something that does not exist."""

    exit_code = 2


class ConfigError(UsageError):
    """A configuration value is out of bounds, unknown, or cannot apply."""


class DataError(PtychoPinnError):
    """A scan, product or reference file was refused."""

    exit_code = 3


class ScoreError(DataError):
    """A score has no value for these pictures."""


class ArchiveError(PtychoPinnError):
    """A model archive was refused: damaged, foreign, or of another kind."""

    exit_code = 3


class ResourceError(PtychoPinnError):
    """Memory or disk ran out, or a device is missing."""

    exit_code = 4


class PluginError(PtychoPinnError):
    """A package or a backend is missing, broken, or registered twice."""

    @classmethod
    def of_import(cls, error: ImportError) -> PluginError:
        """For a package that is needed and cannot be imported."""
        return cls(
            f"A package that is needed cannot be imported: {error}.",
            "Install ptychopinn again with its dependencies; 'ptychopinn doctor' says what there is.",
        )


class TrainingError(PtychoPinnError):
    """Training cannot continue (for example a loss that is not finite)."""


class UnexplainedDataError(PtychoPinnError):
    """A reconstruction was made, but it does not explain the patterns, and the caller asked to be strict."""

    exit_code = 5


class Cancelled(PtychoPinnError):
    """Work was cancelled by its caller before it had a result."""

    exit_code = 130
