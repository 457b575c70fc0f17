"""Found by Ptychodus in its namespace package of plugins; hands over to ptychopinn_ptychodus."""

import logging


def register_plugins(registry: object) -> None:
    """Make the libraries of other distributions known; never stops Ptychodus from starting."""
    try:
        from ptychopinn_ptychodus.hook import install

        install()
    except Exception:  # whatever is broken here, Ptychodus starts without it
        logging.getLogger("ptychopinn").exception("The ptychopinn reconstructors are not available.")
