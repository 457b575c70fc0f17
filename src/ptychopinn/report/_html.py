"""Reports as one self-contained HTML file: nothing is loaded, and all text is escaped."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from ptychopinn.atomic import write_bytes
from ptychopinn.errors import DataError
from ptychopinn.typing import StrPath

_PNG = b"\x89PNG\r\n\x1a\n"

_WIDE = 1.8  # width over height of a picture that has the full width
_MAX_FIGURE_LENGTH = 40  # characters; a longer cell is formatted as text

_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.45 system-ui, "Segoe UI", Helvetica, Arial, sans-serif; color: #1c2329; background: #fff;
  max-width: 1080px; margin: 2rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.5rem; margin: 0 0 1rem; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 2rem 0 .6rem; border-bottom: 1px solid #d5dbe0; padding-bottom: .2rem; }
dl.summary { margin: 0; }
dl.summary div { display: inline-block; vertical-align: top; min-width: 9rem; max-width: 100%;
  box-sizing: border-box; background: #f3f6f8; border-radius: 6px; padding: .5rem .8rem; margin: 0 .5rem .5rem 0; }
dl.summary dt { font-size: .8rem; color: #56636e; }
dl.summary dd { margin: 0; font-size: 1.1rem; font-weight: 600; overflow-wrap: anywhere; }
p.verdict { border-left: 4px solid #56636e; background: #f3f6f8; margin: 1rem 0; padding: .7rem 1rem; max-width: none;
  print-color-adjust: exact; }
p.verdict.good { border-color: #0b6b3a; background: #e7f4ec; }
p.verdict.bad { border-color: #b3261e; background: #fdeceb; }
ul.warnings { background: #fff6e0; border-left: 4px solid #d99a00; margin: 1rem 0; padding: .7rem 1rem .7rem 2rem; }
.figures { orphans: 1; widows: 1; }
figure { display: inline-block; vertical-align: top; box-sizing: border-box; width: 49%; margin: 0 0 1rem;
  padding-right: .8rem; }
figure.wide { width: 100%; }
figure.small { width: 19%; }
figure.small img { aspect-ratio: 1; object-fit: contain; }
figure img { width: 100%; height: auto; box-sizing: border-box; border: 1px solid #e3e8ec; }
.slider { position: relative; container-type: inline-size; line-height: 0; }
.slider img { width: 100cqw; max-width: none; }
.slider .top { position: absolute; left: 0; top: 0; height: 100%; width: 50%; min-width: 2rem; max-width: 100%;
  overflow: hidden; resize: horizontal; box-sizing: border-box; border-right: 2px solid #fff; }
@supports not (width: 1cqw) {
  .slider { display: flex; gap: 2%; }
  .slider .top { position: static; order: -1; width: 49%; height: auto; resize: none; border: 0; }
  .slider > img { width: 49%; }
  .slider .top img { width: 100%; }
}
@media screen and (max-width: 760px) { figure { width: 100%; padding-right: 0; } }
figcaption { font-size: .85rem; color: #56636e; margin-top: .2rem; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { text-align: left; padding: .25rem .8rem .25rem .2rem; border-bottom: 1px solid #e9edf0; vertical-align: top;
  overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
th { font-weight: 500; color: #56636e; width: 34%; }
p.lead { margin: 0 0 1rem; max-width: 46rem; }
.grid { overflow-x: auto; }
.grid table { width: auto; min-width: 60%; }
.grid th, .grid td { width: auto; white-space: nowrap; overflow-wrap: normal; }
.grid thead th { border-bottom: 2px solid #d5dbe0; vertical-align: bottom; white-space: normal; }
.grid td, .grid thead th + th { text-align: right; }
.grid td.best { font-weight: 700; color: #0b6b3a; }
.grid td.text { text-align: left; white-space: normal; min-width: 16rem; }
details { margin: 1.5rem 0; }
summary { cursor: pointer; font-size: 1.1rem; }
@media print {
  body { margin: 0; padding: 0; max-width: none; font-size: 11px; }
  figure, tr, dl.summary div, ul.warnings { break-inside: avoid; }
  h2 { break-after: avoid; }
  .slider { display: flex; gap: 2%; }
  .slider .top { position: static; order: -1; width: 49%; height: auto; resize: none; border: 0; }
  .slider img { width: 49cqw; }
}
"""

# The page must not load anything.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


@dataclass(frozen=True)
class Table:
    """A table with a column for each figure; values are shown as in `ReportContent`."""

    columns: Sequence[str]  # headings; the first is that of the row names
    rows: Sequence[Sequence[object]]  # cells, as many as there are columns
    best: frozenset[tuple[int, int]] = frozenset()  # (row, column) of cells to highlight
    note: str = ""  # a sentence below it
    folded: bool = False  # whether it is collapsed at first


@dataclass(frozen=True)
class ReportContent:
    """Content of a report; numbers are shown with four digits, None as a dash."""

    title: str
    summary: Mapping[str, object] = field(default_factory=dict)  # the main figures: label to value
    tables: Mapping[str, Mapping[str, object]] = field(default_factory=dict)  # heading to rows of label and value
    # Pairs of a caption and a PNG, as bytes or as the path of a file.
    figures: Sequence[tuple[str, bytes | StrPath]] = ()
    warnings: Sequence[str] = ()
    # The conclusion, and whether it is "good", "bad" or neither ("").
    verdict: str = ""
    verdict_kind: str = ""
    # Pairs of pictures of one shape that lie on each other, with a caption: the reader moves the edge of the first.
    sliders: Sequence[tuple[str, bytes, bytes]] = ()
    figure_widths: Mapping[str, float] = field(default_factory=dict)  # caption to percent of the page's width
    lead: str = ""  # introduction of a sentence or two
    # Heading to table; shown before the pictures, folded ones at the end.
    grids: Mapping[str, Table] = field(default_factory=dict)
    wide: bool = False  # whether pictures have the full width
    thumbnails: Sequence[tuple[str, bytes | StrPath]] = ()  # small pictures, as `figures`


def write_report(path: StrPath, content: ReportContent) -> Path:
    """Write a report to one self-contained HTML file.

    Raises
    ------
    DataError
        If a figure is missing or not a PNG.
    UsageError, ResourceError
        If the folder does not exist, or the file cannot be written.
    """
    return write_bytes(path, report_html(content).encode("utf-8", errors="replace"))


def report_html(content: ReportContent) -> str:
    """The report as HTML; errors as in `write_report`."""
    parts = [
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(content.title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>",
        f"<h1>{escape(content.title)}</h1>",
    ]
    if content.lead:
        parts.append(f'<p class="lead">{escape(content.lead)}</p>')
    if content.verdict:
        parts.append(f'<p class="verdict {escape(content.verdict_kind)}">{escape(content.verdict)}</p>')
    if content.warnings:
        items = "".join(f"<li>{escape(text)}</li>" for text in content.warnings)
        parts.append(f'<ul class="warnings" role="alert">{items}</ul>')
    if content.summary:
        cards = "".join(
            f"<div><dt>{escape(key)}</dt><dd>{_text(value)}</dd></div>" for key, value in content.summary.items()
        )
        parts.append(f'<dl class="summary">{cards}</dl>')
    parts += [_table(heading, grid) for heading, grid in content.grids.items() if not grid.folded]
    if content.figures or content.sliders:
        parts.append('<h2>Pictures</h2>\n<div class="figures">')
        parts += [_slider(*slider) for slider in content.sliders]
        for caption, source in content.figures:
            kind, width = "wide" if content.wide else "", content.figure_widths.get(caption)
            parts.append(_figure(caption, source, kind=kind, width=width))
        parts.append("</div>")
    if content.thumbnails:
        parts.append('<h2>Scans</h2>\n<div class="figures">')
        parts += [_figure(caption, source, kind="small") for caption, source in content.thumbnails]
        parts.append("</div>")
    for heading, rows in content.tables.items():
        lines = "".join(
            f'<tr><th scope="row">{escape(key)}</th><td>{_text(value)}</td></tr>\n' for key, value in rows.items()
        )
        parts.append(f"<h2>{escape(heading)}</h2>\n<table>\n{lines}</table>")
    parts += [_table(heading, grid) for heading, grid in content.grids.items() if grid.folded]
    parts.append("</body>\n</html>\n")
    return "\n".join(parts)


def _table(heading: str, grid: Table) -> str:
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in grid.columns)
    lines = []
    for i, (name, *cells) in enumerate([_text(cell) for cell in row] for row in grid.rows):
        marked = "".join(f"<td{_class(cell, (i, j) in grid.best)}>{cell}</td>" for j, cell in enumerate(cells, 1))
        lines.append(f'<tr><th scope="row">{name}</th>{marked}</tr>\n')
    table = f'<div class="grid"><table><thead><tr>{head}</tr></thead>\n<tbody>{"".join(lines)}</tbody></table></div>'
    note = f"<figcaption>{escape(grid.note)}</figcaption>" if grid.note else ""
    if grid.folded:
        return f"<details><summary>{escape(heading)}</summary>\n{table}{note}</details>"
    return f"<h2>{escape(heading)}</h2>\n{table}{note}"


def _text(value: object) -> str:
    """A value as HTML."""
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else escape(str(value))


def _class(cell: str, best: bool) -> str:
    if best:
        return ' class="best"'
    return ' class="text"' if len(cell) > _MAX_FIGURE_LENGTH else ""


def _figure(caption: str, source: bytes | StrPath, *, kind: str = "", width: float | None = None) -> str:
    """A picture with its caption: of a class of figures ("wide" or "small"), or of a width in % of the page."""
    image, ratio = _image(caption, source)
    kind = kind or ("wide" if ratio > _WIDE else "")
    style = f' class="{kind}"' if kind else ""
    if width is not None:
        style = f' style="width: {width:.4g}%"'
    return f"<figure{style}>{image}<figcaption>{escape(caption)}</figcaption></figure>"


def _slider(caption: str, first: bytes, second: bytes) -> str:
    (top, _), (bottom, _) = _image(caption, first), _image(caption, second)
    return (
        f'<figure><div class="slider">{bottom}<div class="top">{top}</div></div>'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _image(caption: str, source: bytes | StrPath) -> tuple[str, float]:
    """A PNG as an element of the page, and its width over its height."""
    if isinstance(source, bytes):
        name, png = "a picture", source
    else:
        name = str(source)
        try:
            png = Path(source).read_bytes()
        except OSError as error:
            raise DataError(f"The picture {name} cannot be read: {error}.", "Write the pictures first.") from error
    if not png.startswith(_PNG) or len(png) < 24:
        raise DataError(f"The content of {name} ({caption!r}) is no PNG.", "Give a PNG file or its bytes.")
    width, height = (int.from_bytes(png[i : i + 4], "big") for i in (16, 20))  # from the header chunk
    data = base64.b64encode(png).decode("ascii")
    image = f'<img src="data:image/png;base64,{data}" width="{width}" height="{height}" alt="{escape(caption)}">'
    return image, width / max(height, 1)
