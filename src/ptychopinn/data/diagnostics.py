"""Collect all problems of a file, so that they can be reported together."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from enum import StrEnum

from ptychopinn.errors import DataError


class Severity(StrEnum):
    """Severity of a problem."""

    ERROR = "error"  # the file is refused
    WARNING = "warning"  # the file is read, but should be inspected
    NOTE = "note"  # the file is read; something was converted or ignored


@dataclass(frozen=True)
class Problem:
    """One problem of a file; ``key`` names the array, or is empty for the whole file. ``remedy`` may be empty."""

    severity: Severity
    key: str
    message: str
    remedy: str = ""
    code: str = ""  # of the requirement, where the scan was mended or is doubted: DATA-120

    def __str__(self) -> str:
        return f"{self.severity}: {self.text}"

    @property
    def text(self) -> str:
        """One line without the severity, the same in every command and report."""
        where = f"{self.key}: " if self.key else ""
        code = f" [{self.code}]" if self.code else ""
        return f"{where}{self.message} {self.remedy}".rstrip() + code


@dataclass
class Findings:
    """The problems of one file."""

    problems: list[Problem] = field(default_factory=list)

    def error(self, key: str, message: str, remedy: str, code: str = "") -> None:
        """Add a problem because of which the file is refused."""
        self.problems.append(Problem(Severity.ERROR, key, message, remedy, code))

    def warning(self, key: str, message: str, remedy: str = "", code: str = "") -> None:
        """Add something to inspect."""
        self.problems.append(Problem(Severity.WARNING, key, message, remedy, code))

    def note(self, key: str, message: str, remedy: str = "", code: str = "") -> None:
        """Add something that was converted or ignored."""
        self.problems.append(Problem(Severity.NOTE, key, message, remedy, code))

    def refused(self, key: str, error: DataError) -> None:
        """Add a raised error."""
        self.error(key, error.problem, error.remedy)

    @property
    def mended(self) -> list[Problem]:
        """What was mended or is doubted: the problems with a code, without errors."""
        return [p for p in self.problems if p.code and p.severity is not Severity.ERROR]

    @property
    def errors(self) -> list[Problem]:
        """The problems because of which the file is refused."""
        return [p for p in self.problems if p.severity is Severity.ERROR]

    def raise_first(self, path: object) -> None:
        """Raise the first error, with its key and the number of others.

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
            logger.log(level, "%s: %s", path, p.text)
