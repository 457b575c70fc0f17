"""Settings of the site: `nox -s docs` builds it from the repository's root, so that links between pages lead there too.

The gallery is executed where PTYCHOPINN_GALLERY is set (`nox -s gallery`); without it notebooks show their code only.
The notebook on Ptychodus is executed where that is installed, and by the bridge's tests.
"""

from __future__ import annotations

import importlib.util
import os
import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from sphinx.application import Sphinx

from ptychopinn import __version__

project = "ptychopinn"
author = "The ptychopinn developers"
copyright = author
release = version = __version__
language = "en"

extensions = ["sphinx.ext.autodoc", "myst_nb"]
root_doc = "docs/index"
include_patterns = [
    *("docs/**.md", "docs/**/*.md", "specs/*.md", "plugins/*/README.md", "models/README.md", "examples/*/README.md"),
    *("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"),
]
default_role = "code"
nitpicky = False

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4
suppress_warnings = ["myst.header", "myst.strikethrough"]  # pages that are one part of another begin lower
nb_execution_mode = "force" if os.environ.get("PTYCHOPINN_GALLERY") else "off"
nb_execution_excludepatterns = [] if importlib.util.find_spec("ptychodus") else ["docs/gallery/ptychodus.md"]
nb_execution_timeout = 3600
nb_execution_raise_on_error = True
nb_merge_streams = True

html_theme = "pydata_sphinx_theme"
html_title = "ptychopinn"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_extra_path = ["_root/index.html"]  # the pages are below docs/, as they are in the repository
html_copy_source = False
html_show_sourcelink = False
html_search_scorer = str(Path(__file__).with_name("search_order.js"))
html_theme_options: dict[str, Any] = {
    "navbar_align": "left",
    "header_links_before_dropdown": 7,
    "show_nav_level": 1,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": ["sphinx-version"],
}

html_sidebars = {f"docs/{page}": [] for page in ("install", "tutorial", "concepts", "troubleshooting", "coming-from")}

autodoc_default_options = {"members": True, "member-order": "bysource", "exclude-members": "model_config"}
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_display_short_literal_types = True
linkcheck_timeout = 30
linkcheck_retries = 2

# Before Sphinx changes annotations of pydantic's base class, which later models would inherit.
for _page in sorted(Path(__file__).parent.glob("api/*.md")):
    for _module in re.findall(r"automodule:: (\S+)", _page.read_text("utf-8")):
        importlib.import_module(_module)

_UNDERLINE = re.compile(r"-{3,}")
_PAGE_LINK = re.compile(r"\[[\w./-]+\.md\]\(([\w./-]+\.md(?:#[\w-]+)?)\)")


def tidy_docstring(app: Sphinx, what: str, name: str, obj: Any, _: Any, lines: list[str]) -> None:
    """Make headings of the sections of a docstring, and list the fields of a configuration model."""
    for number in range(len(lines) - 1, 0, -1):
        if _UNDERLINE.fullmatch(lines[number].strip()):
            lines[number - 1 : number + 1] = [f".. rubric:: {lines[number - 1].strip()}", ""]
    if isinstance(obj, type) and issubclass(obj, BaseModel) and obj is not BaseModel:
        lines += ["", ".. rubric:: Fields", ""]
        for field, info in obj.model_fields.items():
            lines += [f"``{field}``", f"    {' '.join((info.description or info.title or 'see above').split())}", ""]


def tidy_signature(app: Sphinx, what: str, name: str, obj: Any, *_: Any) -> tuple[str, None] | None:
    """Leave out the signature of configuration models: it would repeat every field with its validators."""
    if isinstance(obj, type) and issubclass(obj, BaseModel):
        return "(**fields)", None
    return None


def name_links(app: Sphinx, document: str, source: list[str]) -> None:
    """Call a link that has the name of a page in the repository by the page's title: ``[dim.md](dim.md)``."""
    source[0] = _PAGE_LINK.sub(r"[](\1)", source[0])


def setup(app: Sphinx) -> None:
    """Register them."""
    app.connect("source-read", name_links)
    app.connect("autodoc-process-docstring", tidy_docstring)
    app.connect("autodoc-process-signature", tidy_signature)
