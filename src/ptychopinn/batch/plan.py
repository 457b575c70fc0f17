"""What a batch does: its scans with their settings, out of a plan, checked before any work."""

from __future__ import annotations

import csv
import glob
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptychopinn.config.batch import BatchConfig, BatchItem, Workflow
from ptychopinn.config.build import build
from ptychopinn.config.execution import ExecutionOptions
from ptychopinn.config.files import read_config_file
from ptychopinn.config.run import AllSettings
from ptychopinn.digests import digest_of
from ptychopinn.errors import ConfigError, DataError, UsageError
from ptychopinn.path_checks import why_unreadable
from ptychopinn.plugins import discover, solver_options
from ptychopinn.typing import StrPath
from ptychopinn.workflows import folders
from ptychopinn.workflows.pretrained import NO_MODEL, PRETRAINED

FORMAT = 1  # of a scan's results; a new number invalidates all old ones
PLAN_SUFFIXES = (".yaml", ".yml", ".json")
_TABLE_SUFFIX = ".csv"
_COLUMNS = ("path", "name", "start", "reference", "scan")
_PATTERN = re.compile(r"[*?\[]")
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._+-]")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")
_MAX_SHOWN = 5


@dataclass(frozen=True)
class PlannedScan:
    """A scan of a batch."""

    name: str  # of its run directory
    workflow: Workflow
    path: Path
    start: str | None
    reference: Path | None
    scan: Path | None  # of a reconstruction that is evaluated
    settings: AllSettings[Any, Any]

    def key(self, before: str | None) -> str:
        """A digest of all that the result depends on; ``before`` is that of the scan it starts from."""
        content = {
            "format": FORMAT,
            "workflow": self.workflow,
            "files": [_file_facts(path) for path in (self.path, self._start_file, self.reference, self.scan)],
            "start": self.start,
            "settings": self.settings.model_dump(
                mode="json", exclude={"batch", "study", "comparison", "simulation", "solver"}
            ),
            "before": before,
        }
        return digest_of(content)

    def values(self) -> dict[str, Any]:
        """Plain values for another process."""
        settings = self.settings.model_dump(mode="json", exclude_unset=True, exclude={"batch"})
        return {**vars(self), "settings": settings}

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> PlannedScan:
        """The inverse of `values`, also where paths and the workflow became text."""
        paths = {name: None if values[name] is None else Path(values[name]) for name in ("path", "reference", "scan")}
        workflow, settings = Workflow(values["workflow"]), settings_from(values["settings"])
        return cls(**{**values, **paths, "workflow": workflow, "settings": settings})

    @property
    def _start_file(self) -> Path | None:
        return None if is_installed(self.start) else folders.model_path(str(self.start))


def is_installed(start: str | None) -> bool:
    """Whether a start is not a file."""
    return start in (None, PRETRAINED, NO_MODEL) or start in discover().models


def _file_facts(path: Path | None) -> list[object] | None:
    """Path, size and time of a file; reading all scans of a large batch would take too long."""
    if path is None or not path.exists():
        return None
    facts = path.stat()
    return [str(path), facts.st_size, facts.st_mtime_ns]


def plan_values(plan: StrPath) -> dict[str, Any]:
    """A plan as the values of a configuration file: of YAML or JSON, of a table (CSV), or a pattern of scan files.

    Raises
    ------
    ConfigError
        If it cannot be read.
    """
    if Path(plan).suffix.lower() in PLAN_SUFFIXES:
        return read_config_file(plan)
    rows = _read_table(Path(plan)) if Path(plan).suffix.lower() == _TABLE_SUFFIX else [{"path": str(plan)}]
    return {"batch": {"scans": rows}}


def read_plan(plan: StrPath, **sections: Mapping[str, object]) -> AllSettings[Any, Any]:
    """The settings of a batch.

    Parameters
    ----------
    plan:
        A YAML or JSON file with the section ``batch``, a CSV file, or a pattern such as ``scans/*.npz``.
    sections:
        Fields of sections, which go before those of the file: ``batch={"workflow": "train"}``.

    Raises
    ------
    ConfigError
        If it cannot be read, or a value is unknown or out of bounds.
    """
    values = plan_values(plan)
    for name, fields in sections.items():
        values[name] = {**(values.get(name) or {}), **fields}
    return settings_from(values)


def settings_from(values: Mapping[str, Any]) -> AllSettings[Any, Any]:
    """Settings with the options of their backend, if there is one. Raises ConfigError if a value is refused."""
    registry, name = discover(), values.get("backend")
    if isinstance(name, str):
        options = registry.get(name).options
    else:
        options = registry.default().options if len(registry.specs) else ExecutionOptions
    return build(AllSettings.with_options(options, solver_options(registry)), values)


def _read_table(path: Path) -> list[dict[str, Any]]:
    if (why := why_unreadable(path)) is not None:
        raise ConfigError(f"The plan {path} {why}.", "Give a CSV file with the column path.")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            header, *lines = list(csv.reader(file, strict=True)) or [[]]
    except (OSError, ValueError, csv.Error) as error:
        raise ConfigError(
            f"The plan {path} cannot be read: {error}.", "Give a CSV file with the column path."
        ) from error
    strange = [name for name in header if name not in _COLUMNS and name.count(".") != 1]
    if strange or "path" not in header or len(set(header)) < len(header):
        raise ConfigError(
            f"The columns of {path} are {', '.join(header)[:200] or 'none'}.",
            f"Use path, and perhaps {', '.join(_COLUMNS[1:])}, and settings as SECTION.FIELD, each once.",
        )
    rows = []
    for number, cells in enumerate(filter(any, lines), 2):
        if len(cells) != len(header):
            raise ConfigError(f"Row {number} of {path} has {len(cells)} cells, not {len(header)}.", "Correct it.")
        row: dict[str, Any] = {"settings": {}}
        for name, cell in zip(header, map(str.strip, cells), strict=True):
            section, dot, field = name.partition(".")
            if cell and dot:
                row["settings"].setdefault(section, {})[field] = cell
            elif cell:
                row[name] = cell
        rows.append(row)
    return rows


def planned_scans(settings: AllSettings[Any, Any]) -> tuple[PlannedScan, ...]:
    """The scans of a batch in order.

    Raises
    ------
    PtychoPinnError
        If a file is not there, a pattern matches none, two have one name, or a setting is refused.
    """
    config = settings.batch
    planned = [_plan_scan(config, item, path, settings) for item in config.scans for path in _paths(item)]
    if not planned:
        raise UsageError("The batch has no scans.", "Name some under 'scans' of its section 'batch'.")
    files = [file for one in planned for file in (one.path, one.reference, one.scan) if file is not None]
    missing = dict.fromkeys(f"{file} {why}" for file in files if (why := why_unreadable(file)) is not None)
    if missing:
        more = f" and {len(missing) - _MAX_SHOWN} more" if len(missing) > _MAX_SHOWN else ""
        raise DataError(f"Files of the batch: {'; '.join([*missing][:_MAX_SHOWN])}{more}.", "Correct the plan.")
    _check_names(planned)
    for start in {one.start for one in planned}:
        if not is_installed(start):
            folders.model_path(str(start))
    return tuple(planned)


def _paths(item: BatchItem) -> list[Path]:
    """The files of an item in the order of their names, numbers by their value: scan_9 before scan_10."""
    if not _PATTERN.search(item.path) or Path(item.path).exists():
        return [Path(item.path)]
    found = sorted(glob.glob(item.path, recursive=True), key=_natural)
    if not found:
        raise DataError(f"No file matches {item.path}.", "Correct the pattern.")
    if item.name is not None and len(found) > 1:
        raise UsageError(
            f"{len(found)} files match {item.path}, and have one name, {item.name}.", "Leave the name out."
        )
    return [Path(path) for path in found]


def _natural(path: str) -> list[tuple[int, int, str]]:
    parts = re.split(r"(\d+)", path)
    return [(1, int(part), "") if part.isdecimal() else (0, 0, part) for part in parts]


def _plan_scan(config: BatchConfig, item: BatchItem, path: Path, settings: AllSettings[Any, Any]) -> PlannedScan:
    evaluates = config.workflow is Workflow.EVALUATE
    reference, start = item.reference or config.reference, _start_of(item.start or config.start, config.workflow)
    for what, given, needed in (
        ("reference", reference is not None, evaluates),
        ("scan", item.scan is not None, None if evaluates else False),
        ("start", start is not None, {Workflow.INFER: True, Workflow.EVALUATE: False}.get(config.workflow)),
    ):
        if needed is not None and given != needed:
            problem = f"The batch gives {'no' if needed else 'a'} {what} for {path}"
            raise UsageError(
                f"{problem}, and {config.workflow} {'needs one' if needed else 'takes none'}.", "Change it."
            )
    return PlannedScan(
        name=item.name or _name_of(path),
        workflow=config.workflow,
        path=path.absolute(),
        start=start if is_installed(start) else str(Path(str(start)).absolute()),
        reference=None if reference is None else Path(reference).absolute(),
        scan=None if item.scan is None else Path(item.scan).absolute(),
        settings=_own_settings(item, settings),
    )


def _start_of(start: str, workflow: Workflow) -> str | None:
    """What a scan starts with; None is left to the workflow."""
    nothing = ("auto",) if workflow is Workflow.RECONSTRUCT else ("auto", NO_MODEL)
    return None if start in nothing else start


def _own_settings(item: BatchItem, settings: AllSettings[Any, Any]) -> AllSettings[Any, Any]:
    """The settings of the batch with those of one scan."""
    if not item.settings:
        return settings
    if "batch" in item.settings:
        raise ConfigError(f"The settings of {item.path} have a section batch.", "Leave it out.")
    values = settings.given()
    for section, fields in item.settings.items():
        values[section] = {**values.get(section, {}), **fields}
    try:
        return settings_from(values)
    except ConfigError as error:
        raise ConfigError(f"{item.path}: {error.problem}", error.remedy) from error


def _name_of(path: Path) -> str:
    """The name of a file without suffixes, or of the run directory of a reconstruction."""
    name = path.absolute().parent.name if path.name == folders.PRODUCT else path.stem
    return _NOT_IN_NAMES.sub("_", name)


def _check_names(planned: Sequence[PlannedScan]) -> None:
    known: dict[str, PlannedScan] = {}
    for one in planned:
        if not _NAME.fullmatch(one.name):
            raise UsageError(
                f"The name '{one.name:.80}' of {one.path} cannot be one of a run directory.",
                "Use letters, digits and . _ + - inside.",
            )
        other = known.setdefault(one.name.casefold(), one)  # some file systems do not distinguish case
        if other is not one:
            raise UsageError(
                f"{other.path} and {one.path} would both be written to {one.name}.", "Give one of them another name."
            )
