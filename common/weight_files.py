"""Downloads, checks and reads trained weights that other projects published.

A file is read only if its SHA-256 is the expected one, whether it was downloaded, put in place by
hand or came with a package. No code in a file is run: torch's files are read by
`tensor_files.read_tensors`, pickled arrays by `read_arrays`.
"""

import pickle
import re
import warnings
from pathlib import Path
from typing import Any, Final

import torch

from common.errors import UserError
from common.files import file_sha256
from common.safe_paths import exists, open_to_read

_MAX_BYTES: Final = 2**32  # the largest have 600 MB
# torchvision and others put the first digits of the SHA-256 into the name: vgg19-dcbb9e9d.pth.
_DIGITS: Final = re.compile(r"-([0-9a-f]{8,64})\.")
# What a pickle of NumPy arrays calls. NumPy 2 renamed the module and knows both names.
_ARRAY_CALLS: Final = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
}


def downloaded(url: str) -> Path:
    """Return the path of `url`'s file in torch's cache, after a download if it is not there.

    The name of the file must hold the first digits of its SHA-256.

    Raises:
        UserError: the download failed, or the SHA-256 is another.
    """
    name = url.rsplit("/", 1)[-1]
    digits = digits_in_name(name)
    assert digits is not None, f"no SHA-256 in {name}"
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    path = folder / name
    if not exists(path):
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
    """Return the first digits of the SHA-256 that the name of a file states; None without any."""
    found = _DIGITS.search(name)
    return None if found is None else found[1]


def check_sha256(path: Path, expected: str, remedy: str) -> None:
    """Raise UserError if the SHA-256 of a file does not begin with `expected`.

    The message ends with `remedy`, which says what to do.
    """
    try:
        num_bytes = path.stat().st_size
        if num_bytes > _MAX_BYTES:
            raise UserError(f"{path}: {num_bytes:,} bytes, more than any such weights; {remedy}")
        found = file_sha256(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    if not found.startswith(expected):
        length = min(len(expected), 16)
        raise UserError(
            f"{path}: these are not the weights of that name: the SHA-256 begins with "
            f"{found[:length]}, not with {expected[:length]}; {remedy}"
        )


def read_arrays(path: Path) -> Any:
    """Read a pickle of plain containers and NumPy arrays.

    Raises:
        UserError: the file holds something else, or is damaged.
    """
    try:
        with open_to_read(path) as file, warnings.catch_warnings(action="ignore"):  # NumPy warns
            return _ArrayUnpickler(file).load()
    except UserError:
        raise
    except Exception as error:  # a file that is not a pickle can raise anything in the reader
        raise UserError(f"{path}: not a file of arrays alone ({error})") from error


class _ArrayUnpickler(pickle.Unpickler):
    """An unpickler that calls nothing but the functions that make arrays."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ARRAY_CALLS:
            raise pickle.UnpicklingError(f"{module}.{name} is not called")
        return super().find_class(module, name)
