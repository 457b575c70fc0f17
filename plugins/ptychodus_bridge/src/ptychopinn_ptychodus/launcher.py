"""``ptychopinn-ptychodus``: Ptychodus with its own options, for where it does not find the plugin module.

That is so where Ptychodus is loaded from a checkout on another path: its plugin namespace then lies in the checkout.
"""

from __future__ import annotations

import logging
import sys


def main() -> int:
    """Extend Ptychodus, then run it. Where the plugin module is found as well, it changes nothing more."""
    try:
        import ptychodus.__main__ as host
        import ptychodus.model.core  # noqa: F401 - what `install` extends
    except ImportError as error:
        print(f"Ptychodus cannot be imported: {error}. Install it: python -m pip install 'ptychodus[gui]'")
        return 1
    from ptychopinn_ptychodus.hook import install

    try:
        install()
    except Exception:  # as in the plugin module: Ptychodus starts without it
        logging.getLogger("ptychopinn").exception("The ptychopinn reconstructors are not available.")
    return int(host.main())


if __name__ == "__main__":
    sys.exit(main())
