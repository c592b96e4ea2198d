"""Trained weights of others: how they are found, checked and read.

A file is read only if its SHA-256 is the expected one, no matter whether it was downloaded just now
or earlier, put in place by hand, or came with a package. None is unpickled in a way that could run
code: torch's own are read by `tensor_files.read_tensors`, arrays by `read_arrays`.
"""

import hashlib
import pickle
import re
import warnings
from pathlib import Path
from typing import Any, Final

import torch

from common.errors import UserError

# As torchvision and others name their files: vgg19-dcbb9e9d.pth.
_DIGITS: Final = re.compile(r"-([0-9a-f]{8,64})\.")
# What a pickle of NumPy arrays calls; the module has another name since NumPy 2, which knows both.
_ARRAY_CALLS: Final = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
}


def downloaded(url: str) -> Path:
    """The file of `url` in torch's cache; it is downloaded if it is not there.

    Its name must hold the first digits of its SHA-256.

    Raises:
        UserError: the download failed, or the file is another one.
    """
    name = url.rsplit("/", 1)[-1]
    digits = digits_in_name(name)
    assert digits is not None, f"no SHA-256 in {name}"
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    path = folder / name
    if not path.exists():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path), digits)
        except (OSError, RuntimeError) as error:  # no network; another hash
            raise UserError(
                f"{url} could not be downloaded ({error}); put {name} (sha256 begins with "
                f"{digits}) into {folder}"
            ) from error
    check_sha256(path, digits, "remove it, and it is downloaded anew")
    return path


def digits_in_name(name: str) -> str | None:
    """The first digits of the SHA-256 that a file is named with; None where there are none."""
    found = _DIGITS.search(name)
    return None if found is None else found[1]


def check_sha256(path: Path, expected: str, remedy: str) -> None:
    """Raise UserError, which ends with `remedy`, where the SHA-256 of a file begins otherwise."""
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    if not found.startswith(expected):
        length = min(len(expected), 16)
        raise UserError(
            f"{path}: these are not the weights of that name: the SHA-256 begins with "
            f"{found[:length]}, not with {expected[:length]}; {remedy}"
        )


def read_arrays(path: Path) -> Any:
    """What a pickle of plain containers and NumPy arrays holds.

    Raises:
        UserError: it holds something else, or is damaged.
    """
    try:
        with path.open("rb") as file, warnings.catch_warnings(action="ignore"):  # of the old name
            return _ArrayUnpickler(file).load()
    except Exception as error:  # what is no pickle breaks the reader in any number of ways
        raise UserError(f"{path}: not a file of arrays alone ({error})") from error


class _ArrayUnpickler(pickle.Unpickler):
    """Calls nothing but what arrays are made with."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ARRAY_CALLS:
            raise pickle.UnpicklingError(f"{module}.{name} is not called")
        return super().find_class(module, name)
