"""Flags of the predecessor: accepted as aliases, or refused with what to use instead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ptychopinn.errors import UsageError

ALIASES: Mapping[str, str] = {
    "--device": "--accelerator",
    "--torch-accelerator": "--accelerator",
    "--torch-deterministic": "--deterministic",
    "--no-torch-deterministic": "--no-deterministic",
    "--torch-num-workers": "--num-workers",
    "--torch-learning-rate": "--learning-rate",
    "--torch-scheduler": "--scheduler",
    "--torch-accumulate-grad-batches": "--accumulate-grad-batches",
    "--torch-gradient-clip-val": "--gradient-clip",
    "--gradient-clip-val": "--gradient-clip",
    "--gradient-clip-algorithm-name": "--gradient-clip-algorithm",
    "--torch-logger": "--logger",
    "--torch-inference-batch-size": "--inference-batch-size",
    "--torch-checkpoint-save-top-k": "--checkpoint-top-k",
    "--checkpoint-save-top-k": "--checkpoint-top-k",
    "--torch-checkpoint-monitor-metric": "--checkpoint-monitor",
    "--checkpoint-monitor-metric": "--checkpoint-monitor",
    "--torch-checkpoint-mode": "--checkpoint-mode",
    "--torch-early-stop-patience": "--early-stopping-patience",
    "--early-stop-patience": "--early-stopping-patience",
    "--max-epochs": "--nepochs",
    "--output-dir": "--output",
}

REFUSED: Mapping[str, str] = {
    "--n-images": "Use --n-groups: it counts groups, whatever their size.",
    "--train-data-file": "Give the scan without a flag: ptychopinn train DATA.npz -o RUN.",
    "--train-data": "Give the scan without a flag: ptychopinn train DATA.npz -o RUN.",
    "--test-data-file": "Use --validation FILE for training; ptychopinn infer takes the scan without a flag.",
    "--test-data": "Give the scan without a flag: ptychopinn infer RUN DATA.npz -o OUT.",
    "--model-path": "Give the model without a flag: ptychopinn infer RUN DATA.npz -o OUT.",
    "--disable-mlflow": "Use --logger none, which is the default.",
    "--enable-checkpointing": "Checkpoints are always written; --checkpoint-every says how often.",
    "--torch-enable-checkpointing": "Checkpoints are always written; --checkpoint-every says how often.",
}

_VALUES: Mapping[tuple[str, str], str] = {("--accelerator", "gpu"): "cuda"}


def normalise(arguments: Sequence[str]) -> list[str]:
    """Arguments in today's spelling: dashes for underscores in flags, aliases replaced, ``-1,1`` bound to its flag.

    Raises
    ------
    UsageError
        For a flag that is refused, with what to use instead.
    """
    normal: list[str] = []
    for position, argument in enumerate(arguments):
        if argument == "--":
            return normal + list(arguments[position:])
        if argument.startswith("--"):
            flag, equals, value = argument.partition("=")
            flag = flag.replace("_", "-")
            if flag in REFUSED:
                raise UsageError(f"{flag} is not a flag any more.", REFUSED[flag])
            flag = ALIASES.get(flag, flag)
            normal.append(flag + equals + _VALUES.get((flag, value), value))
        elif normal and normal[-1].startswith("--") and "=" not in normal[-1]:
            # A value, or a positional after a switch. argparse takes "-1,1" for a flag unless it is bound to its own.
            number = len(argument) > 1 and argument[0] == "-" and argument[1] in "0123456789."
            value = _VALUES.get((normal[-1], argument), argument)
            if number:
                normal[-1] += "=" + value
            else:
                normal.append(value)
        else:
            normal.append(argument)
    return normal
