"""The page of settings says what the models say: specs/09-command-line.md."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from ptychopinn.config import TrainConfig

DOCS = Path(__file__).resolve().parents[1] / "docs"


def test_the_page_is_what_the_models_make_of_it() -> None:
    """[CFG-013] Make it anew with: python docs/settings_page.py > docs/settings.md."""
    if not (DOCS / "settings_page.py").is_file():
        pytest.skip("the documentation is not beside the tests")
    spec = importlib.util.spec_from_file_location("settings_page", DOCS / "settings_page.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    page = module.page()
    assert all(f"`{name}`" in page for name in TrainConfig.model_fields)
    assert (DOCS / "settings.md").read_text("utf-8") == page
