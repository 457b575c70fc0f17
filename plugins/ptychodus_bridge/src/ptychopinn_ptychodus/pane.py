"""The pane of an entry, generated from the configuration models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ptychodus.controller.processing import ReconstructorViewControllerFactory
from PyQt5.QtCore import Qt
from PyQt5.QtWidgets import (
    QCheckBox,
    QFormLayout,
    QGroupBox,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from ptychopinn_ptychodus.dialogs import show_error
from ptychopinn_ptychodus.entry import Entry
from ptychopinn_ptychodus.reconstructor import BridgeReconstructor
from ptychopinn_ptychodus.widgets import Editor, label_text

if TYPE_CHECKING:
    from ptychopinn_ptychodus.library import PluginLibrary


_LABEL_CHARACTERS = 21  # width of all labels, so that the editors of all boxes are below one another


class Advanced(QWidget):
    """A button that unfolds the settings below it."""

    def __init__(self, contents: QWidget) -> None:
        super().__init__()
        self.button = QToolButton()
        self.button.setText("Advanced")
        self.button.setCheckable(True)
        self.button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.button.setAutoRaise(True)
        self._contents = contents
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.button)
        layout.addWidget(contents)
        self.button.toggled.connect(self._unfold)
        self._unfold(False)

    def _unfold(self, is_open: bool) -> None:
        self.button.setArrowType(Qt.ArrowType.DownArrow if is_open else Qt.ArrowType.RightArrow)
        self._contents.setVisible(is_open)


class Pane(QWidget):
    """Settings of an entry: those that matter first at the top, all others folded under Advanced."""

    def __init__(self, entry: Entry) -> None:
        super().__init__()
        self._editors = []
        self._layout = QVBoxLayout(self)
        self._layout.setContentsMargins(0, 0, 0, 0)
        basic_box = QGroupBox("Settings")
        basic_form = QFormLayout(basic_box)
        self._layout.addWidget(basic_box)
        advanced = QWidget()
        boxes = QVBoxLayout(advanced)
        boxes.setContentsMargins(0, 0, 0, 0)
        forms: dict[str, QFormLayout] = {}
        for setting, parameter in entry.settings:
            form = basic_form
            if not setting.is_basic:
                if setting.group not in forms:
                    box = QGroupBox(setting.group[:1].upper() + setting.group[1:])
                    forms[setting.group] = QFormLayout(box)
                    boxes.addWidget(box)
                form = forms[setting.group]
            editor = Editor(setting, parameter)
            self._editors.append(editor)
            label = QLabel(label_text(setting) + ":")
            label.setWordWrap(True)
            label.setFixedWidth(label.fontMetrics().averageCharWidth() * _LABEL_CHARACTERS)
            label.setToolTip(editor.widget.toolTip())
            form.addRow(label, editor.widget)
        self.advanced = Advanced(advanced)
        self._layout.addWidget(self.advanced)
        self._layout.addStretch()

    def refresh(self) -> None:
        """Show what has changed beside the settings."""


class TrainablePane(Pane):
    """Above the settings the model, Save Model, which Ptychodus has no action for, and what is trained on."""

    def __init__(self, reconstructor: BridgeReconstructor, processing_api: Any, file_dialog_factory: Any) -> None:
        super().__init__(reconstructor)
        self._reconstructor, self._api, self._dialogs = reconstructor, processing_api, file_dialog_factory
        self._model_label = QLabel()
        self._model_label.setWordWrap(True)
        self.save_button = QPushButton("Save Model...")
        self.save_button.clicked.connect(self._save_model)
        model_box = QGroupBox("Model")
        row = QHBoxLayout(model_box)
        row.addWidget(self._model_label, 1)
        row.addWidget(self.save_button)
        self._layout.insertWidget(0, model_box)
        self.files_box = QCheckBox("Train on files of the chosen directory")
        self.files_box.setObjectName("trains_on_files")
        self.files_box.setChecked(reconstructor.trains_on_files)
        self.files_box.toggled.connect(self._choose_data)
        self._layout.insertWidget(1, self.files_box)
        self.refresh()

    def refresh(self) -> None:
        """Show which model is loaded."""
        self._model_label.setText(self._reconstructor.model_summary)
        self.save_button.setEnabled(self._reconstructor.is_model_loaded())

    def _choose_data(self, on_files: bool) -> None:
        """Train on files, or on the scan that is open."""
        self._reconstructor.trains_on_files = on_files

    def _save_model(self) -> None:
        name_filter = self._reconstructor.get_model_file_filter()
        path, _ = self._dialogs.get_save_file_path(
            self, "Save Model", name_filters=[name_filter], selected_name_filter=name_filter
        )
        if path:
            try:
                self._api.save_model_to_file(path)
            except Exception as error:  # shown, as Ptychodus's own actions do
                show_error(self, "Save Model", error)


class PaneFactory(ReconstructorViewControllerFactory):
    """Makes the pane of each entry of the library."""

    def __init__(self, library: PluginLibrary, processing_api: Any, file_dialog_factory: Any) -> None:
        super().__init__()
        self._library, self._api, self._dialogs = library, processing_api, file_dialog_factory
        self.panes: list[Pane] = []

    @property
    def name(self) -> str:
        """Of the library."""
        return self._library.name

    def create_view_controller(self, reconstructor_name: str) -> QWidget:
        """The pane of an entry; Ptychodus gives its name in small letters."""
        for reconstructor in self._library.reconstructors:
            if reconstructor.name.casefold() == reconstructor_name.casefold():
                pane = (
                    TrainablePane(reconstructor, self._api, self._dialogs)
                    if isinstance(reconstructor, BridgeReconstructor)
                    else Pane(reconstructor)
                )
                self.panes.append(pane)
                return pane
        return QLabel(f"{reconstructor_name} not found!")
