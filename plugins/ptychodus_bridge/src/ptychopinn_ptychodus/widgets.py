"""Qt editors for one setting each, bound to a Ptychodus parameter that holds text."""

from __future__ import annotations

import html
import math
from typing import Any

from ptychodus.api.observer import Observable, Observer
from PyQt5.QtCore import QEvent, QObject, Qt
from PyQt5.QtGui import QPalette, QValidator
from PyQt5.QtWidgets import (
    QAbstractSpinBox,
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QFileDialog,
    QHBoxLayout,
    QLineEdit,
    QPushButton,
    QSizePolicy,
    QSpinBox,
    QWidget,
)

from ptychopinn.config.presets import PRESETS, Preset
from ptychopinn.config.settings import Setting
from ptychopinn_ptychodus.settings import is_path

_MIN_WIDTH_PX = 120  # of an editor; it grows with the pane, not with its text
_MAX_INT = 2**31 - 1
_MAX_REAL = 1e12
_SMALLEST = 1e-12  # for bounds that are not reached themselves


def label_text(setting: Setting) -> str:
    """The label of a setting, with the unit where the words do not have it."""
    unit = f" ({setting.unit})" if setting.unit and setting.unit not in setting.label.lower() else ""
    return f"{setting.label}{unit}"


def tooltip(setting: Setting) -> str:
    """Description, default and bounds, and the name in settings.ini; as rich text, which Qt breaks into lines."""
    facts = "; ".join(setting.facts)
    texts = (setting.description, f"{facts[:1].upper()}{facts[1:]}.", f"In settings.ini: {setting.name}")
    return "".join(f"<p>{html.escape(text)}</p>" for text in texts)


class _WheelFilter(QObject):
    """Passes the wheel on to the pane where a widget has no focus: scrolling over it must not change a setting."""

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:  # noqa: N802 - Qt's name, as below
        if event is None or event.type() != QEvent.Type.Wheel or not isinstance(watched, QWidget) or watched.hasFocus():
            return False
        event.ignore()
        return True


class IntegerBox(QSpinBox):
    """A spin box of integers; an optional one shows what the default is below its minimum."""

    def __init__(self, setting: Setting) -> None:
        super().__init__()
        low = int(setting.bounds.get("ge", setting.bounds.get("gt", -_MAX_INT) + 1))
        high = int(setting.bounds.get("le", setting.bounds.get("lt", _MAX_INT + 1) - 1))
        self._optional = setting.optional
        self.setRange(low - 1 if setting.optional else low, min(high, _MAX_INT))
        if setting.optional:
            self.setSpecialValueText(setting.unset_text)

    def show_text(self, text: str) -> None:
        """Show a parameter's text; what is no integer, or none of Qt's, is left to be judged when the work begins."""
        try:
            self.setValue(self.minimum() if not text and self._optional else int(text))
        except (ValueError, OverflowError):
            _show_as_is(self.lineEdit(), text)

    def text_value(self) -> str:
        """The text for the parameter."""
        return "" if self._optional and self.value() == self.minimum() else str(self.value())


class RealBox(QDoubleSpinBox):
    """A spin box of real numbers, written as 0.001 or 1e-05; an optional one shows what the default is."""

    def __init__(self, setting: Setting) -> None:
        super().__init__()
        self._optional = setting.optional
        bounds = setting.bounds
        self._low = bounds.get("ge", bounds.get("gt", -_MAX_REAL) + (_SMALLEST if "gt" in bounds else 0.0))
        self._high = bounds.get("le", bounds.get("lt", _MAX_REAL) - (_SMALLEST if "lt" in bounds else 0.0))
        self._absent = self._low - 1.0
        self.setDecimals(12)
        self.setRange(self._absent if self._optional else self._low, self._high)
        if self._optional:
            self.setSpecialValueText(setting.unset_text)
        self.setStepType(QAbstractSpinBox.StepType.AdaptiveDecimalStepType)

    def textFromValue(self, value: float) -> str:  # noqa: N802
        """Short, without trailing zeros."""
        return f"{value:.8g}"

    def valueFromText(self, text: str | None) -> float:  # noqa: N802
        """Of a number in any notation."""
        try:
            return float(text or "")
        except ValueError:
            return self.minimum()

    def validate(self, text: str | None, position: int) -> tuple[QValidator.State, str, int]:
        """Acceptable inside the bounds; on the way there while it may become a number."""
        text = text or ""
        if self._optional and self.specialValueText().startswith(text.strip()):
            complete = text.strip() == self.specialValueText()
            return (QValidator.State.Acceptable if complete else QValidator.State.Intermediate), text, position
        try:
            value = float(text)
        except ValueError:
            growing = all(c in "0123456789.+-eE" for c in text.strip())
            return (QValidator.State.Intermediate if growing else QValidator.State.Invalid), text, position
        inside = math.isfinite(value) and self._low <= value <= self._high
        return (QValidator.State.Acceptable if inside else QValidator.State.Intermediate), text, position

    def stepBy(self, steps: int) -> None:  # noqa: N802
        """Step; from the lowest value to the default and back in one."""
        super().stepBy(steps)
        if self._optional and self._absent < self.value() < self._low:  # between the default and the lowest value
            self.setValue(self._low if steps > 0 else self._absent)

    def show_text(self, text: str) -> None:
        """Show a parameter's text."""
        try:
            self.setValue(self._absent if not text and self._optional else float(text))
        except ValueError:
            _show_as_is(self.lineEdit(), text)

    def text_value(self) -> str:
        """The text for the parameter."""
        if self._optional and self.value() <= self._absent:
            return ""
        return self.textFromValue(self.value())


def _show_as_is(line: QLineEdit | None, text: str) -> None:
    if line is not None:
        line.setText(text)


class Editor(Observer):
    """A widget and the parameter that it shows and changes; the setting says which widget it is."""

    def __init__(self, setting: Setting, parameter: Any) -> None:
        super().__init__()
        self._setting, self._parameter = setting, parameter
        self.widget: QWidget = self._make()
        self.widget.setObjectName(setting.name)
        self.widget.setToolTip(tooltip(setting))
        self.widget.setMinimumWidth(_MIN_WIDTH_PX)
        self.widget.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.widget.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self._wheel_filter = _WheelFilter()
        self.widget.installEventFilter(self._wheel_filter)
        self._show()
        parameter.add_observer(self)

    def _make(self) -> QWidget:
        setting = self._setting
        if setting.is_switch:
            check = QCheckBox()
            check.toggled.connect(lambda on: self._parameter.set_value("true" if on else "false"))
            return check
        choices = ("true", "false") if setting.kind is bool else setting.choices
        if choices:
            combo = QComboBox()
            combo.addItems([setting.unset_text, *choices] if setting.optional else list(choices))
            for k in range(combo.count()):
                if combo.itemText(k) in list(Preset):
                    combo.setItemData(k, PRESETS[Preset(combo.itemText(k))].summary, Qt.ItemDataRole.ToolTipRole)
            combo.textActivated.connect(self._choose)
            combo.setEditable(setting.takes_text)
            if (line := combo.lineEdit()) is not None:
                combo.setInsertPolicy(QComboBox.InsertPolicy.NoInsert)  # the list stays that of the enumeration
                line.editingFinished.connect(lambda: self._choose(combo.currentText()))
            return combo
        if setting.kind is int:
            spin = IntegerBox(setting)
            spin.valueChanged.connect(lambda _: self._parameter.set_value(spin.text_value()))
            return spin
        if setting.kind is float:
            real = RealBox(setting)
            real.valueChanged.connect(lambda _: self._parameter.set_value(real.text_value()))
            return real
        line = QLineEdit()
        line.editingFinished.connect(lambda: self._parameter.set_value(line.text()))
        return PathEdit(line) if is_path(setting) else line

    def _choose(self, text: str) -> None:
        self._parameter.set_value("" if self._setting.optional and text == self._setting.unset_text else text)

    def _show(self) -> None:
        text = self._parameter.get_value()
        widget = self.widget
        self._mark_unset(self._setting.optional and not text)
        widget.blockSignals(True)
        if isinstance(widget, QCheckBox):
            widget.setChecked(text.strip().lower() in ("true", "1", "yes", "on"))
        elif isinstance(widget, QComboBox):
            widget.setCurrentText(text or self._setting.unset_text)
        elif isinstance(widget, IntegerBox | RealBox):
            widget.show_text(text)
        elif isinstance(widget, QLineEdit):
            widget.setText(text)
        elif isinstance(widget, PathEdit):
            widget.line.setText(text)
        widget.blockSignals(False)

    def _mark_unset(self, is_unset: bool) -> None:
        """Show what is not given, the default, in grey and italic."""
        font, palette = self.widget.font(), QPalette()
        font.setItalic(is_unset)
        if is_unset:
            grey = palette.color(QPalette.ColorRole.PlaceholderText)
            for role in (QPalette.ColorRole.Text, QPalette.ColorRole.ButtonText):
                palette.setColor(QPalette.ColorGroup.Active, role, grey)
                palette.setColor(QPalette.ColorGroup.Inactive, role, grey)
        self.widget.setFont(font)
        self.widget.setPalette(palette)

    def _update(self, observable: Observable) -> None:
        if observable is self._parameter:
            self._show()


class PathEdit(QWidget):
    """A line with a button that opens a file dialog."""

    def __init__(self, line: QLineEdit) -> None:
        super().__init__()
        self.line = line
        button = QPushButton("Browse")
        button.clicked.connect(self._browse)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(line)
        layout.addWidget(button)

    def _browse(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Choose File", self.line.text())
        if path:
            self.line.setText(path)
            self.line.editingFinished.emit()
