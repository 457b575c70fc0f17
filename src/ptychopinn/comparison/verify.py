"""Verify that a finished comparison is complete and that its figures fit its arrays."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ptychopinn.atomic import write_json
from ptychopinn.comparison.files import read_arrays, read_json
from ptychopinn.comparison.run import MANIFEST, METRICS, REPORT, SUMMARY, VERIFICATION
from ptychopinn.comparison.scoring import rescore
from ptychopinn.comparison.table import Row, Status, comparison_figures, read_table
from ptychopinn.digests import digest_of_file
from ptychopinn.errors import PtychoPinnError
from ptychopinn.typing import StrPath

_TOLERANCE = 1e-4  # relative; the arrays are stored in single precision
_ABSOLUTE_TOLERANCE = 1e-6
_OUTSIDE = re.compile(r"""(?:src|href)\s*=\s*["'](?!data:|#)|url\((?!["']?data:)|<script""", re.IGNORECASE)


def verify_comparison(folder: StrPath) -> dict[str, Any]:
    """Verify a finished comparison and write ``verification_report.json``.

    Returns
    -------
    ``passed``, and ``checks`` with a name, whether it passed, and the problems of each.

    Raises
    ------
    DataError
        If there is no comparison in the folder.
    """
    folder = Path(folder)
    manifest = read_json(folder / MANIFEST)
    checks = []

    def check(name: str, find: Callable[[], list[str]]) -> None:
        try:
            wrong = find()
        except (PtychoPinnError, OSError, KeyError, TypeError, ValueError) as error:  # a damaged file is a failed check
            wrong = [f"{type(error).__name__}: {error}"]
        checks.append({"name": name, "passed": not wrong, "found": wrong[:20], "count": len(wrong)})

    rows: list[Row] = []
    check("the table can be read and has its columns", lambda: rows.extend(read_table(folder / METRICS)) or [])  # type: ignore[func-returns-value]
    check("every candidate has its row for each figure, once", lambda: _whole(rows, manifest))
    check("rows with status ok have a finite value, the others a reason", lambda: _find_bad_rows(rows))
    check("figures are those of the aligned arrays", lambda: _agree(folder, rows, manifest))
    check("the summary holds the values of the table", lambda: _summary(folder, rows))
    check("the scans are those that were compared", lambda: _scans(manifest))
    check("the report needs nothing from outside", lambda: _report(folder))
    report = {"passed": all(c["passed"] for c in checks), "checks": checks}
    write_json(folder / VERIFICATION, report)
    return report


def _whole(rows: list[Row], manifest: Mapping[str, Any]) -> list[str]:
    wanted = {
        (plan["name"], scan, *figure)
        for plan in manifest["legs"]
        for scan in manifest["scans"]
        for figure in comparison_figures()
    }
    there = [(row.candidate, row.scan, row.quantity, row.metric) for row in rows]
    wrong = [f"missing: {' '.join(row)}" for row in sorted(wanted - set(there))]
    wrong += [f"not expected: {' '.join(row)}" for row in sorted(set(there) - wanted)]
    return wrong + [f"twice: {' '.join(row)}" for row in sorted({row for row in there if there.count(row) > 1})]


def _find_bad_rows(rows: list[Row]) -> list[str]:
    wrong = []
    for row in rows:
        ok = row.status is Status.OK
        if ok != (row.value is not None and math.isfinite(row.value)) or (not ok and not row.message):
            wrong.append(
                f"{row.candidate} {row.scan} {row.quantity} {row.metric}: {row.value} is {row.status}: {row.message!r}"
            )
    return wrong


def _agree(folder: Path, rows: list[Row], manifest: Mapping[str, Any]) -> list[str]:
    in_table = {(row.candidate, row.scan, row.quantity, row.metric): row.value for row in rows}
    wrong = []
    for plan in manifest["legs"]:
        for scan in manifest["scans"]:
            for figure, value in rescore(read_arrays(folder / "legs" / plan["name"], scan)).items():
                known = in_table.get((plan["name"], scan, *figure))
                if known is None or abs(known - value) > max(_TOLERANCE * abs(value), _ABSOLUTE_TOLERANCE):
                    wrong.append(f"{plan['name']} {scan} {' '.join(figure)}: {known} in the table, {value:.9g} found")
    return wrong


def _summary(folder: Path, rows: list[Row]) -> list[str]:
    candidates = read_json(folder / SUMMARY)["legs"]
    wrong = []
    for row in rows:
        values = candidates[row.candidate]["scans"][row.scan][row.quantity]
        if row.metric in values:
            known = values[row.metric]
            if (known is None) != (row.value is None) or (
                row.value is not None and not math.isclose(known, row.value, rel_tol=1e-6, abs_tol=1e-12)
            ):
                wrong.append(f"{row.candidate} {row.scan} {row.quantity} {row.metric}: {known}, not {row.value}")
    return wrong


def _scans(manifest: Mapping[str, Any]) -> list[str]:
    wrong = []
    for name, source in manifest["scans"].items():
        paths = [Path(source[key]) for key in ("path", "reference") if source[key] is not None]
        if absent := [str(path) for path in paths if not path.is_file()]:
            wrong.append(f"{name}: not there any more: {', '.join(absent)}")
        elif "".join(digest_of_file(path) for path in paths) != source["digest"]:
            wrong.append(f"{name}: the file has changed")
    return wrong


def _report(folder: Path) -> list[str]:
    text = (folder / REPORT).read_text("utf-8")
    # embedded pictures are long and have no links; search the rest
    text = re.sub(r"data:image/png;base64,[A-Za-z0-9+/=]*", "data:", text)
    return [f"refers to {match.group(0)!r}" for match in _OUTSIDE.finditer(text)]
