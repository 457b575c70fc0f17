"""Editors of single settings (specs/12-ptychodus.md)."""

from __future__ import annotations

import os
from importlib.util import find_spec

import pytest

pytest.importorskip("ptychodus", reason="Ptychodus is not installed")
if find_spec("PyQt5") is None:
    pytest.skip("PyQt5 is not installed", allow_module_level=True)

from ptychodus.api.settings import SettingsRegistry

from ptychopinn.config import ExecutionOptions
from ptychopinn.config.build import build
from ptychopinn.config.train import TrainConfig
from ptychopinn.reconstructor import ReconstructorSpec
from ptychopinn_ptychodus.settings import EntrySettings, entry_settings

pytestmark = pytest.mark.usefixtures("qt")


@pytest.mark.parametrize("text", ["3000000000", "-3000000000", "many", "1" * 5000])
@pytest.mark.parametrize("name", ["seed", "nepochs"])
def test_a_number_that_no_box_can_show_opens_the_window(monkeypatch: pytest.MonkeyPatch, name: str, text: str) -> None:
    """[PTY-004] [PTY-022] It is left as it is, to be read or refused when the work begins."""
    monkeypatch.setenv("QT_QPA_PLATFORM", os.environ.get("QT_QPA_PLATFORM", "offscreen"))
    from PyQt5.QtWidgets import QApplication

    from ptychopinn_ptychodus.widgets import Editor

    application = QApplication.instance() or QApplication([])
    settings = EntrySettings(
        SettingsRegistry(), "g", entry_settings(ReconstructorSpec("x", "", "a:B", ExecutionOptions))
    )
    setting, parameter = next(pair for pair in settings if pair[0].name == name)
    parameter.set_value(text)
    editor = Editor(setting, parameter)
    assert editor.widget.text() == text  # type: ignore[attr-defined]
    assert parameter.get_value() == text
    assert application is not None


def test_a_device_is_chosen_or_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    """[PTY-023] The list is that of the words; a card's number is typed, kept and shown again."""
    monkeypatch.setenv("QT_QPA_PLATFORM", os.environ.get("QT_QPA_PLATFORM", "offscreen"))
    from PyQt5.QtWidgets import QApplication, QComboBox

    from ptychopinn_ptychodus.widgets import Editor

    application = QApplication.instance() or QApplication([])
    settings = EntrySettings(
        SettingsRegistry(), "g", entry_settings(ReconstructorSpec("x", "", "a:B", ExecutionOptions))
    )
    pairs = {setting.name: (setting, parameter) for setting, parameter in settings}
    editor = Editor(*pairs["accelerator"])
    combo = editor.widget
    assert isinstance(combo, QComboBox)
    assert [combo.itemText(k) for k in range(combo.count())] == ["auto", "cpu", "cuda"]
    line = combo.lineEdit()
    line.setText("cuda:1")
    line.editingFinished.emit()
    assert settings.parameter("execution", "accelerator").get_value() == "cuda:1"
    assert build(ExecutionOptions, settings.values()["execution"]).accelerator == "cuda:1"
    settings.parameter("execution", "accelerator").set_value("cuda:3")
    assert (combo.currentText(), combo.count()) == ("cuda:3", 3)
    closed = Editor(*pairs["precision"]).widget
    assert isinstance(closed, QComboBox)
    assert not closed.isEditable()
    assert application is not None


def test_a_default_is_shown_by_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    """[PTY-023] In italics; a value that is set is not. Labels have words and units, tooltips say more."""
    monkeypatch.setenv("QT_QPA_PLATFORM", os.environ.get("QT_QPA_PLATFORM", "offscreen"))
    from PyQt5.QtWidgets import QApplication

    from ptychopinn_ptychodus.widgets import Editor, label_text

    application = QApplication.instance() or QApplication([])
    settings = EntrySettings(
        SettingsRegistry(), "g", entry_settings(ReconstructorSpec("x", "", "a:B", ExecutionOptions))
    )
    pairs = {setting.name: (setting, parameter) for setting, parameter in settings}
    for name, words in {"nepochs": "60, or the time limit", "learning_rate": "0.001 (CPU), 0.003 (GPU)"}.items():
        setting, parameter = pairs[name]
        editor = Editor(setting, parameter)
        assert (editor.widget.text(), editor.widget.font().italic()) == (words, True)  # type: ignore[attr-defined]
        parameter.set_value("1")
        assert (editor.widget.text(), editor.widget.font().italic()) == ("1", False)  # type: ignore[attr-defined]
        parameter.set_value("")
        assert (editor.widget.text(), editor.widget.font().italic()) == (words, True)  # type: ignore[attr-defined]
    assert label_text(pairs["max_time"][0]) == "Time limit (s)"
    assert label_text(pairs["refine"][0]) == "Refinement passes"
    tip = Editor(*pairs["refine"]).widget.toolTip()
    assert all(words in tip for words in ("start from the network", "Default: 2; at least 0", "settings.ini: refine"))
    assert application is not None


def test_a_large_seed_is_that_of_the_training() -> None:
    """[PTY-022]"""
    settings = EntrySettings(
        SettingsRegistry(), "g", entry_settings(ReconstructorSpec("x", "", "a:B", ExecutionOptions))
    )
    settings.parameter("train", "seed").set_value("3000000000")
    assert build(TrainConfig, settings.values()["train"]).seed == 3_000_000_000
