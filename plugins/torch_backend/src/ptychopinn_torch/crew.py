"""Parts of a batch side by side, each on its share of the cores.

PyTorch spreads one operation over the cores; those of our networks are so small that half of the time goes into that.
"""

from __future__ import annotations

import threading

import torch

from ptychopinn.parallel import Crew

_MOST = 4  # parts at a time
FEWEST = 8  # patterns that are worth a part of their own


def crew_of(device: torch.device) -> Crew:
    """Threads that compute with an equal share of the cores each; on a GPU, and with one core, there is but the caller."""
    cores = torch.get_num_threads() if device.type == "cpu" else 1
    count = min(cores, _MOST)

    def begin() -> None:
        torch.get_num_threads()  # a thread takes over the number of all threads when it first asks, and never again
        torch.set_num_threads(cores // count)

    crew = Crew(count, begin)
    if count > 1:
        all_there = threading.Barrier(count)
        crew.spread(lambda _: all_there.wait(), range(count))
        torch.set_num_threads(cores)  # the last to set it sets it for all threads to come, those of others too
    return crew
