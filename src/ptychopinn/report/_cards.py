"""What notebooks show of a scan, a model or a result: pictures, figures, warnings."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

from ptychopinn.report._figure import new_figure, png_of, with_own_settings

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Draw = Callable[["Axes"], object]
_WIDTH_IN, _DPI = 3.0, 80
_MAX_WARNINGS = 5
_LEFT = "text-align:left"
_BOX = "display:block;max-width:100%"


@with_own_settings
def card_picture(*draw: Draw) -> bytes:
    """PNG of some drawings side by side, each on axes of its own."""
    figure = new_figure(_WIDTH_IN * len(draw), 2.6, _DPI)
    for one, axes in zip(draw, figure.subplots(1, len(draw), squeeze=False)[0], strict=True):
        one(axes)
        axes.tick_params(labelsize=7)
        axes.title.set_fontsize(8)
    return png_of(figure)


def card_html(title: str, png: bytes | None, figures: Mapping[str, object], warnings: Sequence[str] = ()) -> str:
    """HTML of a card without style sheets or scripts; all text is escaped."""
    rows = "".join(
        f"<tr><th style='{_LEFT}'>{escape(name)}</th><td style='{_LEFT}'>{escape(_text(value))}</td></tr>"
        for name, value in figures.items()
    )
    shown = [*warnings[:_MAX_WARNINGS], *(["..."] if len(warnings) > _MAX_WARNINGS else [])]
    doubts = "".join(f"<li>{escape(text)}</li>" for text in shown)
    listed = f"<ul style='background:#fff6e0;color:#1c2329'>{doubts}</ul>" if doubts else ""
    image = (
        ""
        if png is None
        else f"<img style='{_BOX}' alt='{escape(title)}' src='data:image/png;base64,{base64.b64encode(png).decode()}'>"
    )
    return f"<div><strong>{escape(title)}</strong><br>{image}<table>{rows}</table>{listed}</div>"


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
