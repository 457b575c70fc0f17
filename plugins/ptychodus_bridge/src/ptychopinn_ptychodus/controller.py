"""Ptychodus's processing controller with the panes of added libraries, live losses, and dialogs for failed runs."""

from __future__ import annotations

import inspect
import logging
from typing import Any

from PyQt5.QtCore import QTimer

from ptychopinn_ptychodus.dialogs import ask, show_error
from ptychopinn_ptychodus.losses import smooth

_TICK_MS = 250
_log = logging.getLogger("ptychopinn.ptychodus")


def extended_controller(base: Any) -> type:
    """A subclass of Ptychodus's ``ProcessingController`` that appends the pane factories of the added libraries."""

    class ExtendedProcessingController(base):  # type: ignore[misc]
        def __init__(self, *arguments: Any, **named: Any) -> None:
            bound = inspect.signature(base.__init__).bind(self, *arguments, **named)
            given = bound.arguments
            api, algorithm = given["processing_api"], given["algorithm_parameter"]
            libraries = getattr(api, "external_libraries", ())
            factories = _factories(libraries, api, given["file_dialog_factory"])
            self._ptychopinn_factories = factories
            api.is_shown = True
            api.confirm = lambda question: ask(given["view"], "Train", question)
            available = list(algorithm.available_reconstructors())
            if available and algorithm.get_value() not in available:
                # The dropdown would show the first entry while a reconstructor that does nothing is active.
                algorithm.set_value(available[0])
            given["view_controller_factories"] = [*given["view_controller_factories"], *factories]
            base.__init__(*bound.args, **bound.kwargs)
            self._ptychopinn_watch = _RunWatcher(
                self, libraries, given["view"], given["status_view"], api.task_monitor, given["product_repository"]
            )

        def _sync_action_buttons_to_selection(self) -> None:
            """Infer needs a product to work on and a model; Ptychodus looks at one of them at a time."""
            super()._sync_action_buttons_to_selection()
            reconstructor = self._algorithm_parameter.get_current_reconstructor()
            if hasattr(reconstructor, "model_summary") and not reconstructor.is_model_loaded():
                self._actions_view.reconstruct_button.setEnabled(False)

        def _sync_model_to_view(self) -> None:
            super()._sync_model_to_view()
            if hasattr(self._algorithm_parameter.get_current_reconstructor(), "model_summary"):
                self._sync_action_buttons_to_selection()
            for pane in self._ptychopinn_panes():
                pane.refresh()

        def _ptychopinn_panes(self) -> list[Any]:
            return [pane for factory in self._ptychopinn_factories for pane in getattr(factory, "panes", ())]

        def ptychopinn_refresh(self) -> None:
            """Look again at what can be pressed."""
            self._sync_model_to_view()

    return ExtendedProcessingController


def _factories(libraries: Any, processing_api: Any, file_dialog_factory: Any) -> list[Any]:
    factories = []
    for library in libraries:
        try:
            factories.append(library.create_view_controller_factory(processing_api, file_dialog_factory))
        except Exception:  # Ptychodus then shows "not found" in the place of its panes
            _log.exception("The library '%s' has no panes.", library.name)
    return factories


class _RunWatcher:
    """Polls the latest run a few times a second, on the GUI's thread."""

    def __init__(
        self, controller: Any, libraries: Any, view: Any, status_view: Any, monitor: Any, products: Any
    ) -> None:
        self._products = products
        self._controller, self._libraries = controller, libraries
        self._view, self._status, self._monitor = view, status_view, monitor
        self._run: Any = None
        self._drawn = 0
        status_view.stop_button.clicked.connect(self._stop_pressed)
        self._timer = QTimer()
        self._timer.timeout.connect(self._tick)
        self._timer.start(_TICK_MS)

    def _latest(self) -> Any:
        runs = [run for run in (getattr(lib, "latest_run", None) for lib in self._libraries) if run is not None]
        active = [run for run in runs if not run.finished]
        return active[0] if active else (self._run if self._run in runs else (runs[0] if runs else None))

    def _stop_pressed(self) -> None:
        run = self._latest()
        if run is not None and not run.finished:
            self._status.stop_button.setText("Stopping...")
            self._status.stop_button.setEnabled(False)

    def _tick(self) -> None:
        run = self._latest()
        if run is None:
            return
        if run is not self._run:
            self._run, self._drawn, self._closed = run, 0, False
        if run.kind == "train" and len(run.losses) != self._drawn:
            self._draw(run)
        if not run.finished:
            self._sync_status()  # progress and log, more often than once a second
        elif not self._closed and not self._monitor.is_processing:
            self._closed = True
            self._close(run)

    def _draw(self, run: Any) -> None:
        losses = list(run.losses)
        self._drawn = len(losses)
        axes = self._status.axes
        axes.clear()
        axes.set_title(f"{run.entry}: training loss")
        axes.set_xlabel("Batches")
        axes.set_ylabel("")  # the title says it; labels of a log axis need the room
        if all(value > 0 for _, value in losses):
            axes.set_yscale("log")
        batches, values = [count for count, _ in losses], [value for _, value in losses]
        axes.plot(batches, values, ".", color="0.75", markersize=4)
        axes.plot(batches, smooth(values), linewidth=2.0)
        axes.grid(True)
        self._status.figure_canvas.draw_idle()

    def _close(self, run: Any) -> None:
        self._status.stop_button.setText("Stop")
        self._status.stop_button.setEnabled(True)
        self._sync_status()
        self._remove_empty_product(run)
        self._controller.ptychopinn_refresh()
        if run.error is not None:
            show_error(self._view, f"{run.entry}: {run.kind} failed", run.error)

    def _sync_status(self) -> None:
        """Show progress and log, with the newest line in view."""
        self._controller._status_controller._sync_model_to_view()
        bar = self._status.text_edit.verticalScrollBar()
        bar.setValue(bar.maximum())

    def _remove_empty_product(self, run: Any) -> None:
        """Remove the copy of the input that Ptychodus made for the product of a run that made none."""
        if run.kind == "train" or run.has_product or run.product_item is None:
            return
        for index in range(len(self._products)):
            if self._products[index] is run.product_item:
                self._products.remove_product(index)
                return
