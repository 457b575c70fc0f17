"""Ptychodus's processing core with libraries added to it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ptychopinn_ptychodus.discovery import load_libraries

_NO_ALGORITHM = "none_none"  # what Ptychodus calls its reconstructor that does nothing
_log = logging.getLogger("ptychopinn.ptychodus")


def is_extended(cls: type) -> bool:
    """Whether a class came from `extended_core`."""
    return bool(getattr(cls, "ptychopinn_extended", False))


def extended_core(base: Any) -> type:
    """A subclass of Ptychodus's ``ProcessingCore`` that appends the libraries of the entry-point group."""

    class ExtendedProcessingCore(base):  # type: ignore[misc]
        ptychopinn_extended = True

        def __init__(
            self, task_manager: Any, settings_registry: Any, product_api: Any, algorithm_libraries: Any
        ) -> None:
            developer = logging.getLogger("ptychodus.model.core").getEffectiveLevel() <= logging.DEBUG
            added = load_libraries(settings_registry, developer, [library.name for library in algorithm_libraries])
            super().__init__(task_manager, settings_registry, product_api, [*algorithm_libraries, *added])
            self.processing_api.external_libraries = tuple(added)
            older = {old: new for library in added for old, new in getattr(library, "older_names", {}).items()}
            _check_algorithms(self.algorithm_parameter, self.processing_api, older)
            _offer_open_scans(self.processing_api, self.algorithm_parameter)
            _announce_products(self.processing_api, self.algorithm_parameter, product_api)
            for library in added:
                if hasattr(library, "connect"):
                    library.connect(task_manager, self.processing_api.task_monitor)

    return ExtendedProcessingCore


def _check_algorithms(parameter: Any, api: Any, older: Mapping[str, str]) -> None:
    """Take older names of algorithms too; log an unknown one as an error, and fail where none is selected.

    Ptychodus itself falls back to a reconstructor that does nothing, says so at the debug level, and exits with 0.
    ``older`` maps older names to those of today.
    """
    asked = ""
    set_value, train, reconstruct = parameter.set_value, api.train, api.reconstruct

    def choose(value: str, *, notify: bool = True) -> None:
        nonlocal asked
        value = older.get(value.strip().casefold(), value)
        key = value.strip().casefold()
        if key not in (_NO_ALGORITHM, *parameter.available_reconstructors()):
            asked = value.strip()
            known = ", ".join(parameter.available_reconstructors()) or "none"
            _log.error("There is no algorithm '%s'. Known are: %s.", asked, known)
        elif key != _NO_ALGORITHM:
            asked = ""
        set_value(value, notify=notify)

    def refuse(algorithm: str | None) -> None:
        if algorithm is not None:
            parameter.set_value(algorithm)
        # In the window the dropdown shows what is active instead, and that is what the user means.
        if parameter.get_value() == _NO_ALGORITHM or (asked and not getattr(api, "is_shown", False)):
            known = ", ".join(parameter.available_reconstructors()) or "none"
            what = f"There is no algorithm '{asked}'" if asked else "No algorithm is selected"
            raise ValueError(f"{what}. Set 'algorithm' in the section [Processing] to one of: {known}.")

    def checked_train(*args: Any, algorithm: str | None = None, **kwargs: Any) -> Any:
        refuse(algorithm)
        return train(*args, **kwargs)

    def checked_reconstruct(*args: Any, algorithm: str | None = None, **kwargs: Any) -> Any:
        refuse(algorithm)
        return reconstruct(*args, **kwargs)

    parameter.set_value, api.train, api.reconstruct = choose, checked_train, checked_reconstruct


def _offer_open_scans(api: Any, parameter: Any) -> None:
    """A trainer that can use it gets the scan that is open; on other data it trains only if the user agrees.

    ``api.confirm``, which the window sets, asks a question and returns whether the answer is yes.
    """
    train = api.train

    def train_with_scan(input_path: Path, output_path: Path, *, product_index: int, **kwargs: Any) -> Any:
        if kwargs.get("algorithm") is not None:
            parameter.set_value(kwargs["algorithm"])
        trainer, shown = parameter.get_current_reconstructor(), getattr(api, "is_shown", False)
        if hasattr(trainer, "offer_scan"):
            if trainer.wants_scan(Path(input_path), in_window=shown):
                trainer.offer_scan(api.get_reconstruct_input(product_index=product_index))
            elif shown and not api.confirm(
                f"Train on {trainer.training_data(Path(input_path))}, not on the open scan?"
            ):
                return None
        return train(input_path, output_path, product_index=product_index, **kwargs)

    api.train = train_with_scan


def _announce_products(api: Any, parameter: Any, product_api: Any) -> None:
    """Tell a reconstructor the item of the product that Ptychodus makes for an inference before it starts.

    The window removes it if the inference fails.
    """
    insert, reconstruct = product_api.insert_product, api.reconstruct

    def announced_reconstruct(*args: Any, algorithm: str | None = None, **kwargs: Any) -> Any:
        if algorithm is not None:
            parameter.set_value(algorithm)
        reconstructor = parameter.get_current_reconstructor()
        if not hasattr(reconstructor, "expect_product"):
            return reconstruct(*args, **kwargs)

        def announced_insert(*inserted: Any, **named: Any) -> Any:
            index = insert(*inserted, **named)
            reconstructor.expect_product(product_api.get_item(index))
            return index

        product_api.insert_product = announced_insert
        try:
            return reconstruct(*args, **kwargs)
        finally:
            product_api.insert_product = insert

    api.reconstruct = announced_reconstruct
