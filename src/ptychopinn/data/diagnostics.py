"""Problems of a file, collected so that all of them are told at once."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from enum import StrEnum

from ptychopinn.errors import DataError


class Severity(StrEnum):
    """What a problem means for the reader of a file."""

    ERROR = "error"  # the file is refused
    WARNING = "warning"  # it is read, and somebody should look
    NOTE = "note"  # it is read, and something was converted or left out


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a file.

    Attributes
    ----------
    severity:
        Whether it keeps the file from being read.
    key:
        The array it is about; empty for the file as a whole.
    message:
        What is wrong, and what was seen.
    remedy:
        What to do about it; may be empty.
    """

    severity: Severity
    key: str
    message: str
    remedy: str = ""

    def __str__(self) -> str:
        where = f"{self.key}: " if self.key else ""
        return f"{self.severity}: {where}{self.message} {self.remedy}".rstrip()


@dataclass
class Findings:
    """Collects the problems of one file while it is looked through."""

    problems: list[Problem] = field(default_factory=list)

    def error(self, key: str, message: str, remedy: str) -> None:
        """Add what keeps the file from being read."""
        self.problems.append(Problem(Severity.ERROR, key, message, remedy))

    def warning(self, key: str, message: str, remedy: str = "") -> None:
        """Add what somebody should look at."""
        self.problems.append(Problem(Severity.WARNING, key, message, remedy))

    def note(self, key: str, message: str, remedy: str = "") -> None:
        """Add what was converted or left out."""
        self.problems.append(Problem(Severity.NOTE, key, message, remedy))

    def refused(self, key: str, error: DataError) -> None:
        """Add an error that was raised."""
        self.error(key, error.problem, error.remedy)

    @property
    def errors(self) -> list[Problem]:
        """The problems that keep the file from being read."""
        return [p for p in self.problems if p.severity is Severity.ERROR]

    def raise_first(self, path: object) -> None:
        """Raise the first error, naming its key and how many more there are.

        Raises
        ------
        DataError
            If there is an error.
        """
        errors = self.errors
        if not errors:
            return
        first = errors[0]
        where = f"{path}: {first.key}: " if first.key else f"{path}: "
        more = len(errors) - 1
        rest = f" ({more} more: 'ptychopinn validate' lists them all.)" if more else ""
        raise DataError(where + first.message, first.remedy + rest)

    def log(self, logger: logging.Logger, path: object) -> None:
        """Log warnings and notes."""
        for p in self.problems:
            level = logging.INFO if p.severity is Severity.NOTE else logging.WARNING
            where = f"{p.key}: " if p.key else ""
            logger.log(level, "%s: %s%s %s", path, where, p.message, p.remedy)
