"""Makes the pictures of docs/ptychodus.md: python screenshots.py PICTURES [SHARED_DATA [BACKEND]].

Drives the released program offscreen. With SHARED_DATA, the folder of the measured Siemens star, that is the scan; else
a simulated one. BACKEND is the first one that is installed, or the one that is named. Look at the pictures afterwards.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
sys.path.insert(0, str(Path(__file__).parent))

import gui_driver
import numpy as np
from bridge_scans import make_product, write_files, write_scan_folder
from gui_driver import Gui
from PIL import Image
from PyQt5.QtCore import QPoint
from PyQt5.QtGui import QPainter
from PyQt5.QtWidgets import QApplication

TRAIN_S = 90


def pictures(gui: Gui) -> None:
    """Dropdown, pane, a training half-way, and the object."""
    gui.view.resize(1320, 800)
    gui.show_page("Processing")
    gui.open_scan()
    gui.choose(gui.algorithm)
    gui.rest(0.5)
    _dropdown(gui)
    gui.set_field("max_time", TRAIN_S)
    gui.controller._scroll_area.verticalScrollBar().setValue(0)
    gui.rest(0.3)
    gui.picture("pane")
    gui.begin_training()
    gui.wait(lambda: gui.progress.value() > 650, 600)
    gui.picture("training")
    gui.wait(lambda: not gui.busy, 600)
    gui.rest(1.6)
    gui.infer_button.click()
    gui.wait(lambda: gui.busy)
    gui.wait(lambda: not gui.busy, 600)
    gui.rest(2)
    assert gui.run().error is None, gui.run().error
    gui.show_page("Object")
    tree = gui.view.object_view.tree_view
    tree.setCurrentIndex(tree.model().index(tree.model().rowCount() - 1, 0))
    image = gui.view.object_image_view
    combo = next(c for c in image.findChildren(type(gui.algorithms)) if c.findText("Phase (Unwrapped)") >= 0)
    combo.setCurrentText("Phase (Unwrapped)")
    combo.textActivated.emit("Phase (Unwrapped)")
    gui.rest(0.5)
    next(b for b in image.findChildren(type(gui.stop_button)) if b.text() == "Auto").click()
    gui.rest(1)
    gui.picture("object")


def _dropdown(gui: Gui) -> None:
    """The window with its dropdown open, which is a window of its own."""
    assert gui.pictures is not None
    gui.algorithms.showPopup()
    gui.rest(0.3)
    popup = gui.algorithms.view().window()
    whole = gui.view.grab()
    painter = QPainter(whole)
    painter.drawPixmap(gui.algorithms.mapTo(gui.view, QPoint(0, gui.algorithms.height())), popup.grab())
    painter.end()
    whole.save(str(gui.pictures / "dropdown.png"))
    gui.algorithms.hidePopup()
    QApplication.processEvents()


def _write_scan(folder: Path, shared: Path | None) -> None:
    if shared is None:
        write_scan_folder(folder, rows=20, size=64)
        return
    with np.load(shared / "siemens-star.npz") as star:
        positions = np.stack([star["ycoords"], star["xcoords"]], axis=1)
        product = make_product(
            positions, star["probeGuess"], star["objectGuess"], pixel_m=(1e-8, 1e-8), name="siemens-star"
        )
        write_files(folder, star["diff3d"], product)


def main() -> int:
    """Write a scan, play both stories in processes of their own, and make the pictures small."""
    if sys.argv[1] in ("pictures", "killed"):
        return gui_driver.main({"pictures": pictures, "killed": gui_driver.killed})
    from ptychopinn.plugins import discover

    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    backend = sys.argv[3] if len(sys.argv) > 3 else next(iter(discover().specs))
    with tempfile.TemporaryDirectory() as home:
        for story in ("pictures", "killed"):
            folder = Path(home) / story
            _write_scan(folder, Path(sys.argv[2]) if len(sys.argv) > 2 and story == "pictures" else None)
            made = Path(home) / "made"
            made.mkdir(exist_ok=True)
            command = [sys.executable, __file__, story, folder, f"ptychopinn-plugin_unsupervised-{backend}", "{}", made]
            done = subprocess.run(list(map(str, command)), check=False, env={**os.environ, "HOME": home})
            seen = json.loads((folder / "seen.json").read_text())
            if done.returncode or "failed" in seen:
                print(seen.get("failed"))
                return 1
        for path in sorted(made.glob("*.png")):
            small = Image.open(path).convert("RGB").quantize(96, dither=Image.Dither.NONE)
            small.save(target / f"ptychodus-{path.stem}.png", optimize=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
