"""Dialogs: a failure, a question."""

from __future__ import annotations

from PyQt5.QtCore import Qt
from PyQt5.QtWidgets import QMessageBox, QTextEdit, QWidget

from ptychopinn.errors import PtychoPinnError


def show_error(parent: QWidget | None, title: str, error: BaseException) -> QMessageBox:
    """Open a dialog with what went wrong, the remedy, and the worker's last lines; does not wait for its end."""
    dialog = QMessageBox(parent)
    dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
    dialog.setWindowTitle(title)
    dialog.setIcon(QMessageBox.Icon.Critical)
    if isinstance(error, PtychoPinnError):
        dialog.setText(error.problem)
        dialog.setInformativeText(error.remedy)
    else:
        dialog.setText(f"{type(error).__name__}: {error}")
    details = getattr(error, "details", "")
    if details:
        dialog.setDetailedText(details)
        for button in dialog.buttons():
            if dialog.buttonRole(button) == QMessageBox.ButtonRole.ActionRole:
                button.click()  # the last lines are shown at once
        box = dialog.findChild(QTextEdit)
        if box is not None:
            box.setMinimumWidth(640)
            box.setFixedHeight(220)  # Qt fixes it to 100
    dialog.open()
    return dialog


def ask(parent: QWidget | None, title: str, question: str) -> bool:
    """Ask a question and wait for the answer: whether it is yes."""
    buttons = QMessageBox.StandardButton.Yes | QMessageBox.StandardButton.No
    return QMessageBox.question(parent, title, question, buttons) == QMessageBox.StandardButton.Yes
