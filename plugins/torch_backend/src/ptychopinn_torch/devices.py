"""Choose the device, and test it before any work.

Builds of PyTorch for ROCm call their devices ``cuda`` too; they are used as such.
"""

from __future__ import annotations

import logging
import threading
import warnings

import torch

from ptychopinn.config.execution import Accelerator, cuda_number
from ptychopinn.errors import ResourceError
from ptychopinn.training import no_cuda, no_such_card
from ptychopinn_torch.arrays import is_out_of_memory

_log = logging.getLogger("ptychopinn.torch")
_CPU = torch.device("cpu")
_FILTERING = threading.Lock()  # filters of warnings are those of the process


def choose_device(asked: Accelerator | str) -> torch.device:
    """The device for the option ``accelerator``.

    ``cuda`` is the first card, ``cuda:K`` card number K. ``auto`` is the usable card with most free memory, or the CPU
    if there is none; unusable cards are logged.

    Raises
    ------
    ResourceError
        If CUDA was asked for, but this build of PyTorch has none, the driver does not fit, the card does not exist, or
        it is full, in exclusive use, or not supported by this build.
    """
    if asked == Accelerator.CPU:
        return _CPU
    if not _cuda_is_there():
        if asked != Accelerator.AUTO:
            raise no_cuda(asked, f"PyTorch {torch.__version__}", f"is {_build()}", _remedy())
        _log.info("No CUDA: PyTorch %s is %s.", torch.__version__, _build())
        return _CPU
    if asked == Accelerator.AUTO:
        return _card_with_most_memory()
    number, cards = cuda_number(asked) or 0, range(torch.cuda.device_count())
    if number not in cards:
        raise no_such_card(number, [_name(k) for k in cards])
    try_card(number)
    if len(cards) > 1 and asked == Accelerator.CUDA:
        _log.info("There are %d cards; cuda is the first of them, cuda:K another.", len(cards))
    return torch.device("cuda", number)


def describe(device: torch.device) -> str:
    """Describe a device by number, name and memory, as PyTorch reports them (of a MIG slice, its own)."""
    if device.type != "cuda":
        return str(device)
    free, total = torch.cuda.mem_get_info(device)
    rocm = f", ROCm {torch.version.hip}" if torch.version.hip else ""
    return f"{device} ({_name(device.index)}, {total / 2**30:.1f} GiB, {free / 2**30:.1f} free{rocm})"


def try_card(number: int) -> None:
    """Compute two numbers on a card. Raises ResourceError if it fails, with the reason."""
    try:
        _compute(torch.device("cuda", number))
    except RuntimeError as error:  # the base of torch.OutOfMemoryError and torch.AcceleratorError
        raise ResourceError(
            f"cuda:{number} ({_name(number)}) cannot be used: {_reason(error)}.",
            "Use another card (--accelerator cuda:K) or --accelerator cpu, or free this one.",
        ) from error


def _compute(device: torch.device) -> None:
    torch.ones(2, device=device).add(1).sum().item()


def _reason(error: RuntimeError) -> str:
    """Why a card cannot compute, from PyTorch's error."""
    text = str(error)
    if is_out_of_memory(error):
        return "its memory is full, not even two numbers fit"
    if "busy or unavailable" in text:
        return "another program has exclusive use of it"
    if "no kernel image" in text:
        return f"PyTorch {torch.__version__} has no kernels for it"
    return _first_line(error)


def _card_with_most_memory() -> torch.device:
    """The usable card with most free memory, or the CPU."""
    count = torch.cuda.device_count()
    free: dict[int, float] = {}
    for number in range(count):
        try:
            try_card(number)
            free[number] = torch.cuda.mem_get_info(number)[0] / 2**30
        except (ResourceError, RuntimeError) as error:
            _log.warning("cuda:%d is skipped: %s", number, _first_line(error))
    if not free:
        _log.warning("No card can be used; computing on the CPU.")
        return _CPU
    best = max(free, key=lambda number: free[number])
    if count > 1:
        listed = ", ".join(f"cuda:{number} {gib:.1f} GiB" for number, gib in free.items())
        _log.info("Of %d cards cuda:%d has most free memory (%s).", count, best, listed)
    return torch.device("cuda", best)


def _cuda_is_there() -> bool:
    with _FILTERING, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of an old driver; `_driver_problem` reports it
        return torch.cuda.is_available()


def _build() -> str:
    """The kind of this PyTorch build, and why it finds no card."""
    if torch.version.hip is None and torch.version.cuda is None:
        return "a build for the CPU only"
    built = f"ROCm {torch.version.hip}" if torch.version.hip else f"CUDA {torch.version.cuda}"
    return f"built for {built} and finds no card: {_driver_problem()}"


def _driver_problem() -> str:
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except (RuntimeError, AssertionError) as error:  # names the version of an old driver
        return _first_line(error)
    return "the driver has none, or CUDA_VISIBLE_DEVICES hides it"


def _remedy() -> str:
    if torch.version.hip is None and torch.version.cuda is None:
        return "install a build of torch for CUDA (pytorch.org says how)"
    return "install a driver that serves this build, or a build that the driver serves"


def _name(number: int) -> str:
    name: str = torch.cuda.get_device_properties(number).name
    return name


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].strip().rstrip(".")
