"""Named variables of nested objects, as in an archive."""

from __future__ import annotations

from ptychopinn_tf._tensorflow import tf


class Module:
    """An object whose attributes are variables, modules, or lists of modules."""

    def variables(self) -> dict[str, tf.Variable]:
        """Name to variable, in the order of the attributes: ``embed/0/weight``."""
        found: dict[str, tf.Variable] = {}
        for name, value in vars(self).items():
            if isinstance(value, tf.Variable):
                found[name] = value
            for part, module in _modules(name, value).items():
                found |= {f"{part}/{inner}": variable for inner, variable in module.variables().items()}
        return found


def _modules(name: str, value: object) -> dict[str, Module]:
    if isinstance(value, Module):
        return {name: value}
    if isinstance(value, list):
        return {f"{name}/{index}": module for index, module in enumerate(value) if isinstance(module, Module)}
    return {}
