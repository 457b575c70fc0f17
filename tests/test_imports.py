"""What importing this package brings along."""

import subprocess
import sys

import pytest

import ptychopinn

HEAVY = ("torch", "tensorflow", "keras", "lightning_fabric", "jax")


def modules_after(code: str) -> set[str]:
    code += "; import sys; print(' '.join(sorted({m.partition('.')[0] for m in sys.modules})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def test_importing_the_package_imports_no_framework_and_nothing_heavy() -> None:
    """[PLUG-002] In a fresh process."""
    assert not modules_after("import ptychopinn") & {*HEAVY, "numpy", "h5py", "matplotlib", "skimage", "pydantic"}


def test_the_command_line_starts_light() -> None:
    """[CLI-016]"""
    seen = modules_after("from ptychopinn.cli import main; main(['plugins', '--quiet'])")
    assert not seen & {*HEAVY, "matplotlib", "skimage"}


def test_jobs_start_without_statistics() -> None:
    """[CLI-016] `scipy.stats`, which scikit-image needs for a score alone, takes as long as the rest."""
    code = "import sys, ptychopinn.comparison.worker; assert 'scipy.stats' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", sorted(set(ptychopinn.__all__) - {"__version__"}))
def test_every_public_name_is_there(name: str) -> None:
    value = getattr(ptychopinn, name)
    assert value.__doc__
    assert name in dir(ptychopinn)


def test_the_version_is_that_of_the_distribution() -> None:
    from importlib.metadata import version

    assert ptychopinn.__version__ == version("ptychopinn")


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = ptychopinn.no_such_name


def test_type_checkers_see_the_same_names() -> None:
    """The names under TYPE_CHECKING are those that are found when they are used."""
    import ast
    import inspect

    tree = ast.parse(inspect.getsource(ptychopinn))
    (guarded,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {
        f"{node.module}.{alias.asname}"
        for node in guarded.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == {f"ptychopinn.{home}.{name}" for name, home in ptychopinn._HOME.items()}
