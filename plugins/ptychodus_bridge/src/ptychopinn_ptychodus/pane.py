"""The pane of an entry, generated from the configuration models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ptychodus.controller.processing import ReconstructorViewControllerFactory
from PyQt5.QtWidgets import QFormLayout, QGroupBox, QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from ptychopinn_ptychodus.dialogs import show_error
from ptychopinn_ptychodus.reconstructor import BridgeReconstructor
from ptychopinn_ptychodus.widgets import Editor

if TYPE_CHECKING:
    from ptychopinn_ptychodus.library import PluginLibrary

_TITLES = {"model": "Network", "train": "Training", "infer": "Inference", "execution": "Execution"}
_WORDS = {"nepochs": "Epochs", "nll": "NLL", "mae": "MAE", "mb": "MB", "amp": "Amplitude"}


def label_of(name: str) -> str:
    """A field's name as a label: ``batch_size`` is "Batch size"."""
    words = [_WORDS.get(word, word) for word in name.split("_")]
    return " ".join([words[0][:1].upper() + words[0][1:], *words[1:]])


class Pane(QWidget):
    """Settings of an entry, its model, and Save Model, which Ptychodus has no action for.

    Parameters
    ----------
    reconstructor:
        The entry.
    processing_api, file_dialog_factory:
        Ptychodus's.
    """

    def __init__(self, reconstructor: BridgeReconstructor, processing_api: Any, file_dialog_factory: Any) -> None:
        super().__init__()
        self._reconstructor, self._api, self._dialogs = reconstructor, processing_api, file_dialog_factory
        self._editors = []
        self._model_label = QLabel()
        self._model_label.setWordWrap(True)
        self.save_button = QPushButton("Save Model...")
        self.save_button.clicked.connect(self._save_model)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        model_box = QGroupBox("Model")
        row = QHBoxLayout(model_box)
        row.addWidget(self._model_label, 1)
        row.addWidget(self.save_button)
        layout.addWidget(model_box)
        forms: dict[str, QFormLayout] = {}
        for setting, parameter in reconstructor.settings:
            if setting.section not in forms:
                box = QGroupBox(_TITLES.get(setting.section, setting.section))
                forms[setting.section] = QFormLayout(box)
                layout.addWidget(box)
            editor = Editor(setting, parameter)
            self._editors.append(editor)
            label = QLabel(label_of(setting.name) + ":")
            label.setToolTip(editor.widget.toolTip())
            forms[setting.section].addRow(label, editor.widget)
        layout.addStretch()
        self.refresh()

    def refresh(self) -> None:
        """Show which model is loaded."""
        self._model_label.setText(self._reconstructor.model_summary)
        self.save_button.setEnabled(self._reconstructor.is_model_loaded())

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
                pane = Pane(reconstructor, self._api, self._dialogs)
                self.panes.append(pane)
                return pane
        return QLabel(f"{reconstructor_name} not found!")
