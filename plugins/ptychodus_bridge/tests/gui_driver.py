"""Drives the unmodified Ptychodus window: python gui_driver.py STORY FOLDER ALGORITHM [FIELDS [PICTURES]].

Only ``QApplication.exec`` is wrapped: instead of waiting for a person, it plays a story and writes what it saw to
FOLDER/seen.json. FIELDS are the settings that keep a training tiny, as JSON. With PICTURES, a folder, screenshots go
there.
"""

from __future__ import annotations

import gc
import json
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from PyQt5.QtCore import QPoint, QPointF, Qt, QTimer
from PyQt5.QtGui import QWheelEvent
from PyQt5.QtWidgets import (
    QApplication,
    QCheckBox,
    QComboBox,
    QDialogButtonBox,
    QDoubleSpinBox,
    QFileDialog,
    QLineEdit,
    QMessageBox,
    QPushButton,
    QSpinBox,
    QToolButton,
    QWidget,
)

FRAMEWORKS = ("torch", "tensorflow", "keras", "lightning_fabric", "jax")


class Gui:
    """The window, by what a person sees of it."""

    def __init__(self, folder: Path, algorithm: str, fields: dict[str, Any], pictures: Path | None) -> None:
        from ptychodus.controller import ControllerCore

        self.folder, self.algorithm, self.fields, self.pictures = folder, algorithm, fields, pictures
        self.core = next(o for o in gc.get_objects() if isinstance(o, ControllerCore))
        self.view = self.core.view
        self.controller = self.core._processing_controller
        self.seen: dict[str, Any] = {}
        self.asked = ""  # the question that was answered last

    def wait(self, until: Callable[[], Any], limit_s: float = 180.0) -> float:
        """Let the window live until something is so; returns the seconds that it took."""
        start = time.monotonic()
        while not until():
            if time.monotonic() - start > limit_s:
                raise TimeoutError(f"not within {limit_s} s: {until.__code__.co_consts}\n{self.log_text()}")
            QApplication.processEvents()
            time.sleep(0.01)
        return time.monotonic() - start

    def rest(self, seconds: float) -> None:
        """Let the window live for a while."""
        end = time.monotonic() + seconds
        self.wait(lambda: time.monotonic() > end)

    def picture(self, name: str, widget: QWidget | None = None) -> None:
        """Take a screenshot."""
        if self.pictures is not None:
            QApplication.processEvents()
            (widget or self.view).grab().save(str(self.pictures / f"{name}.png"))

    def show_page(self, title: str) -> None:
        """Press a button of the navigation bar."""
        for action in self.view.navigation.action_group.actions():
            if action.text() == title:
                action.trigger()
                return
        raise LookupError([a.text() for a in self.view.navigation.action_group.actions()])

    @property
    def algorithms(self) -> QComboBox:
        return self.controller._algorithm_view_controller.get_widget()

    def choose(self, algorithm: str) -> None:
        """Choose an algorithm as a person does."""
        index = self.algorithms.findText(algorithm)
        assert index >= 0, algorithm
        self.algorithms.setCurrentIndex(index)
        self.algorithms.textActivated.emit(algorithm)

    @property
    def pane(self) -> QWidget:
        return self.controller._stacked_widget.currentWidget()

    def editor(self, name: str) -> Any:
        """The widget of a setting in the pane that is shown."""
        found = self.pane.findChild(QWidget, name)
        assert found is not None, name
        return found

    def set_field(self, name: str, value: Any) -> None:
        """Give a setting a value through its widget."""
        widget = self.editor(name)
        if isinstance(widget, QSpinBox | QDoubleSpinBox):
            widget.setValue(value)
        elif isinstance(widget, QCheckBox):
            widget.setChecked(value)
        elif isinstance(widget, QComboBox):
            widget.setCurrentText(value)
            widget.textActivated.emit(value)
        else:
            widget.setText(value)
            widget.editingFinished.emit()

    def turn_wheel(self, widget: QWidget) -> None:
        """Turn the mouse's wheel by a step over a widget that has no focus."""
        assert not widget.hasFocus()
        middle = QPointF(widget.rect().center())
        no_button, modifier = Qt.MouseButtons(Qt.MouseButton.NoButton), Qt.KeyboardModifier.NoModifier
        step = QPoint(0, 120)
        begun, forward = Qt.ScrollPhase.NoScrollPhase, False
        event = QWheelEvent(middle, middle, QPoint(), step, no_button, modifier, begun, forward)
        QApplication.sendEvent(widget, event)

    @property
    def train_button(self) -> QPushButton:
        return self.controller._actions_view.train_button

    @property
    def infer_button(self) -> QPushButton:
        return self.controller._actions_view.reconstruct_button

    @property
    def stop_button(self) -> QPushButton:
        return self.controller._status_view.stop_button

    @property
    def progress(self) -> Any:
        return self.controller._status_view.progress_bar

    @property
    def busy(self) -> bool:
        return bool(self.core.model.processing_core.processing_api.task_monitor.is_processing)

    def curve(self) -> list[float]:
        """The losses that the status plot shows."""
        lines = self.controller._status_view.axes.lines
        return [float(v) for v in lines[0].get_ydata()] if lines else []

    def log_text(self) -> str:
        return self.controller._status_view.text_edit.toPlainText()

    def run(self) -> Any:
        """The bridge's latest run."""
        return next(
            lib.latest_run
            for lib in self.core.model.processing_core.processing_api.external_libraries
            if hasattr(lib, "latest_run")
        )

    def answer_file_dialog(self, path: Path) -> None:
        """Type a path into the file dialog that the next press opens."""

        def answer() -> None:
            dialog = QApplication.activeModalWidget()
            if not isinstance(dialog, QFileDialog):
                QTimer.singleShot(50, answer)
                return
            edit = dialog.findChild(QLineEdit, "fileNameEdit")
            edit.setText(str(path))
            box = dialog.findChild(QDialogButtonBox)
            next(b for b in box.buttons() if box.buttonRole(b) == QDialogButtonBox.ButtonRole.AcceptRole).click()

        QTimer.singleShot(50, answer)

    def agree(self) -> None:
        """Answer Yes to the question that the next press asks."""

        def answer() -> None:
            dialog = QApplication.activeModalWidget()
            if not isinstance(dialog, QMessageBox):
                QTimer.singleShot(50, answer)
                return
            self.asked = dialog.text()
            dialog.button(QMessageBox.StandardButton.Yes).click()

        QTimer.singleShot(50, answer)

    def close_error(self, picture: str = "") -> list[str]:
        """Wait for the dialog of a failed run and press OK; title, problem, remedy and details."""

        def find_dialogs() -> list[QMessageBox]:
            return [w for w in QApplication.topLevelWidgets() if isinstance(w, QMessageBox) and w.isVisible()]

        self.wait(find_dialogs)
        (dialog,) = find_dialogs()
        self.rest(0.3)
        texts = [dialog.windowTitle(), dialog.text(), dialog.informativeText(), dialog.detailedText()]
        if picture:
            self.picture(picture, dialog)
        next(b for b in dialog.buttons() if b.text().replace("&", "") == "OK").click()
        self.rest(0.3)
        return texts

    def load_model(self, path: Path) -> str:
        """Load a model through the menu; the text of the dialog that refused it, or nothing."""
        texts: list[str] = []
        loaded = False

        def answer() -> None:
            dialog = QApplication.activeModalWidget()
            if isinstance(dialog, QMessageBox):
                texts.append(f"{dialog.text()}\n{dialog.informativeText()}")
                dialog.accept()
            elif not loaded:
                QTimer.singleShot(50, answer)

        self.answer_file_dialog(path)
        answer()
        self.menu("Load Model...")  # comes back when its dialogs are closed
        loaded = True
        self.rest(0.2)
        return "".join(texts)

    def menu(self, name: str) -> None:
        """Choose from the menu beside Train."""
        next(a for a in self.controller._actions_view.actions_menu.actions() if a.text() == name).trigger()

    def open_scan(self) -> None:
        """Open FOLDER/diffraction.h5 and product.h5."""
        api = self.core.model.workflow_api
        handle = api.load_assembled_diffraction_data(self.folder / "diffraction.h5")
        api.load_product(self.folder / "product.h5", diffraction=handle)
        self.wait(lambda: self.train_button.isEnabled())

    def prepare(self, **fields: Any) -> None:
        """Show the page, open the scan, choose the algorithm, set what keeps a training tiny."""
        self.view.resize(1280, 800)
        self.show_page("Processing")
        self.open_scan()
        self.choose(self.algorithm)
        for name, value in {**self.fields, **fields}.items():
            self.set_field(name, value)

    def begin_training(self, folder: Path | None = None, *, agree: bool = False) -> None:
        """Press Train and choose a directory, FOLDER or another; agree to train on its files."""
        self.answer_file_dialog(folder or self.folder)
        self.asked = ""
        if agree:
            self.agree()
        self.train_button.click()
        self.wait(lambda: self.busy)

    def finish(self) -> None:
        """Wait for the end of a run that works, and for the window to have noticed."""
        self.wait(lambda: not self.busy, 300)
        if self.run().error is not None:
            raise RuntimeError(f"{self.run().error}\n{self.log_text()}")
        self.rest(1.6)


def whole(gui: Gui) -> None:
    """Dropdown, pane, train, infer, save, a wrong model refused, load, infer again."""
    gui.seen["algorithms"] = [gui.algorithms.itemText(i) for i in range(gui.algorithms.count())]
    gui.seen["active at start"] = gui.core.model.processing_core.algorithm_parameter.get_value()
    gui.seen["shown at start"] = gui.algorithms.currentText()
    gui.prepare(nepochs=12)
    gui.seen["pane"] = {
        w.objectName(): type(w).__name__ for w in gui.pane.findChildren(QWidget) if w.toolTip() and w.objectName()
    }
    button = next(b for b in gui.pane.findChildren(QToolButton) if b.text() == "Advanced")
    for key in ("shown folded", "shown unfolded"):
        gui.seen[key] = [w.objectName() for w in gui.pane.findChildren(QWidget) if w.isVisible() and w.toolTip()]
        gui.seen[key] = sorted({name for name in gui.seen[key] if name and not name.startswith("qt_")})
        button.click()
        gui.rest(0.1)
    spin = gui.editor("batch_size")
    gui.seen["batch_size"] = [spin.minimum(), spin.maximum(), spin.value(), spin.toolTip()]
    gui.turn_wheel(spin)
    gui.seen["scrolled over"] = spin.value()
    gui.seen["n_groups"] = gui.editor("n_groups").text()
    settings = gui.folder / "saved.ini"
    gui.core.model.settings_registry.save_settings(settings)
    gui.seen["infer before training"] = gui.infer_button.isEnabled()
    gui.begin_training()
    gui.wait(lambda: gui.progress.isVisible() and gui.stop_button.isVisible())
    gui.wait(lambda: gui.progress.value() > 0 or not gui.busy)
    gui.seen["progress while training"] = gui.progress.value() / gui.progress.maximum()
    gui.finish()
    gui.seen["curve"] = gui.curve()
    gui.seen["log"] = gui.log_text()
    gui.seen["infer after training"] = gui.infer_button.isEnabled()
    _infer(gui, "first")
    kept = gui.folder / "kept"  # dialogs add no suffix
    gui.answer_file_dialog(kept)
    next(b for b in gui.pane.findChildren(QPushButton) if b.text() == "Save Model...").click()
    (gui.folder / "model.zip").unlink()
    wrong = gui.folder / "wrong.zip"
    wrong.write_bytes(b"not a model at all")
    gui.seen["refused"] = gui.load_model(wrong)
    kept = kept.with_suffix(".zip")
    gui.choose(_of_other_type(gui.algorithm))
    gui.seen["refused by the other type"] = gui.load_model(kept)
    gui.seen["infer of the other type"] = gui.infer_button.isEnabled()
    gui.choose(gui.algorithm)
    gui.seen["not refused"] = gui.load_model(kept)
    _infer(gui, "again")
    exported = gui.folder / "exported"
    gui.answer_file_dialog(exported)
    gui.menu("Export Training Data...")
    gui.rest(0.2)
    gui.seen["exported"] = exported.with_suffix(".npz").is_file()


def _of_other_type(algorithm: str) -> str:
    library, _, entry = algorithm.partition("_")
    kind, _, backend = entry.partition("-")
    return f"{library}_{'unsupervised' if kind == 'supervised' else 'supervised'}-{backend}"


def _infer(gui: Gui, key: str) -> None:
    before = len(gui.core.model.product_core.product_repository)
    gui.infer_button.click()
    gui.wait(lambda: gui.busy)
    gui.finish()
    repository = gui.core.model.product_core.product_repository
    product = repository[before].get_product()
    gui.seen[key] = {
        "products": len(repository) - before,
        "shape": list(product.object_.get_array().shape),
        "deviation": float(abs(product.object_.get_array() - 1).max()),
        "losses": len(product.losses),
        "name": product.metadata.name,
        "center": [product.object_.get_center().y_m, product.object_.get_center().x_m],
        "plot": len(gui.curve()),
    }


def sources(gui: Gui) -> None:
    """Train on an exported NPZ file, on Ptychodus's pair of files, on the scan that is open, and on what is no use."""
    gui.prepare()
    for name in ("npz", "pair", "empty"):
        (gui.folder / name).mkdir()
    gui.answer_file_dialog(gui.folder / "npz/exported.npz")
    gui.menu("Export Training Data...")
    for name in ("diffraction.h5", "product.h5"):
        shutil.copy(gui.folder / name, gui.folder / "pair")
    for name, on_files in (("npz", True), ("pair", True), ("open", False), ("empty", False)):
        before = len(gui.log_text())
        gui.pane.findChild(QCheckBox, "trains_on_files").setChecked(on_files)
        gui.begin_training(gui.folder / ("npz" if name == "open" else name), agree=on_files)
        gui.finish()
        gui.seen[name] = {
            "model": (gui.folder / ("npz" if name == "open" else name) / "model.zip").is_file(),
            "log": gui.log_text()[before:],
            "asked": gui.asked,
        }
    bar = gui.controller._status_view.text_edit.verticalScrollBar()
    gui.seen["newest line in view"] = bar.value() == bar.maximum()
    model = gui.folder / "empty/model.zip"
    before = len(gui.core.model.product_core.product_repository)
    trainer = gui.core.model.processing_core.algorithm_parameter.get_current_reconstructor()
    trainer.settings.parameter("infer", "inference_batch_size").set_value("none of these")
    gui.infer_button.click()
    gui.seen["failed inference"] = gui.close_error()
    gui.seen["products of it"] = len(gui.core.model.product_core.product_repository) - before
    gui.seen["model kept"] = gui.infer_button.isEnabled() and model.is_file()
    gui.choose(_of_other_type(gui.algorithm))  # the open scan's object is constant
    gui.begin_training(gui.folder / "empty")
    gui.seen["refused"] = gui.close_error()


def killed(gui: Gui) -> None:
    """Kill the worker: a dialog says so."""
    gui.prepare(nepochs=100000)
    gui.begin_training()
    gui.wait(lambda: len(gui.curve()) > 3 and gui.busy)  # it grows while the training goes on
    os.kill(gui.run().worker_pid, signal.SIGKILL)
    gui.seen["dialog"] = gui.close_error("killed")
    gui.seen["stop text"] = gui.stop_button.text()
    gui.seen["train again"] = gui.train_button.isEnabled()


def stop(gui: Gui) -> None:
    """Stop a long training: it answers at once and leaves a model."""
    gui.prepare(nepochs=100000)
    gui.begin_training()
    gui.wait(lambda: len(gui.run().losses) > 2)
    gui.choose(_of_other_type(gui.algorithm))  # a run belongs to the entry that started it
    start = time.monotonic()
    gui.stop_button.click()
    gui.seen["says"] = [gui.stop_button.text(), gui.stop_button.isEnabled()]
    gui.wait(lambda: gui.run().stopping)
    gui.seen["answered after"] = time.monotonic() - start
    gui.wait(lambda: not gui.busy)
    gui.seen["over after"] = time.monotonic() - start
    gui.finish()
    gui.seen["model"] = (gui.folder / "model.zip").is_file()
    gui.seen["other has a model"] = gui.infer_button.isEnabled()
    gui.choose(gui.algorithm)
    gui.seen["own has a model"] = gui.infer_button.isEnabled()
    gui.seen["log"] = gui.log_text()
    gui.infer_button.click()
    gui.wait(lambda: gui.busy and gui.stop_button.isVisible())
    start = time.monotonic()
    gui.stop_button.click()
    gui.wait(lambda: not gui.busy)
    gui.seen["inference over after"] = time.monotonic() - start
    gui.finish()
    gui.seen["stop text"] = gui.stop_button.text()


def close(gui: Gui) -> None:
    """Close the window while a training goes on."""
    gui.prepare(nepochs=100000)
    gui.begin_training()
    gui.wait(lambda: len(gui.run().losses) > 2)
    gui.seen["pid"] = gui.run().worker_pid
    gui.seen["closed at"] = time.time()
    gui.view.close()


def automatic(gui: Gui) -> None:
    """Reconstruct without a training: the object so far is shown, and Stop ends it."""
    gui.prepare()
    gui.seen["buttons"] = [gui.infer_button.text(), gui.train_button.isVisible()]
    products = gui.core.model.product_core.product_repository
    before = len(products)
    gui.infer_button.click()

    def deviation() -> float:
        return float(abs(products[before].get_product().object_.get_array() - 1).max())

    gui.wait(lambda: len(products) > before and deviation() > 0.01)
    gui.seen["busy at the first picture"] = gui.busy
    gui.picture("automatic")
    gui.stop_button.click()
    (gui.folder.parent / "pictures_seen").write_text("1000")  # the worker waits for it
    gui.finish()
    gui.seen["products"] = len(products) - before
    gui.seen["deviation"] = deviation()
    gui.seen["log"] = gui.log_text()


STORIES: dict[str, Callable[[Gui], None]] = {s.__name__: s for s in (whole, sources, killed, stop, close, automatic)}


def main(stories: dict[str, Callable[[Gui], None]] = STORIES) -> int:
    """Start Ptychodus with its own main and play a story in it."""
    story, folder, algorithm = sys.argv[1:4]
    fields = json.loads(sys.argv[4]) if len(sys.argv) > 4 else {}
    pictures = Path(sys.argv[5]) if len(sys.argv) > 5 else None
    sys.argv = ["ptychodus"]
    import ptychodus.__main__ as host

    def play(*_: object) -> int:
        gui = Gui(Path(folder), algorithm, fields, pictures)
        code = 0
        try:
            stories[story](gui)
        except BaseException:
            gui.seen["failed"] = traceback.format_exc()
            code = 1
        gui.seen["frameworks"] = [name for name in FRAMEWORKS if name in sys.modules]
        (Path(folder) / "seen.json").write_text(json.dumps(gui.seen))
        return code

    QApplication.exec = QApplication.exec_ = play  # type: ignore[assignment, method-assign]
    return int(host.main())


if __name__ == "__main__":
    sys.exit(main())
