"""UserError, the exception for mistakes that a user can fix, and helpers that sort other errors.

Entry points print a UserError as one line. Other exceptions are bugs and keep their traceback.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pydantic import ValidationError

_LONGEST_KEY: Final = 60  # characters of a key of an untrusted file that a message shows
# In messages of RuntimeErrors that mean lack of memory: by torch's CPU allocator, by CUDA, and by
# its libraries (CUBLAS_STATUS_ALLOC_FAILED, CUDNN_STATUS_ALLOC_FAILED).
_NO_MEMORY = ("DefaultCPUAllocator", "CUDA error: out of memory", "_STATUS_ALLOC_FAILED")


class UserError(ValueError):
    """An error that the user can fix. Its message is one line that names the file or config key,
    what was found there and what to do.

    Args:
        details: further lines, one for each of several mistakes; `str` gives them all.
    """

    def __init__(self, message: str, details: Sequence[str] = ()) -> None:
        super().__init__("\n  ".join((message, *details)))
        self.lines = (message, *(f"  {line}" for line in details))


def in_one_line(error: Exception) -> str:
    """Describe in one line why one of many jobs failed.

    For a UserError that is its message; for any other exception the type comes first.
    """
    if isinstance(error, UserError):
        return str(error)
    message = " ".join(str(error).split())
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def first_problem(error: "ValidationError", within: str = "") -> str:
    """The first problem that pydantic found, in one line with the key: `log.step: Input should be`.

    Args:
        within: dotted key of the checked value.
    """
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    keys = [f"{key:.{_LONGEST_KEY}}" for key in (within, *map(str, first["loc"])) if key]
    return ": ".join(filter(None, (".".join(keys), first["msg"])))


def lacks_memory(error: BaseException) -> bool:
    """Whether the error means lack of memory, on the machine or on a GPU."""
    if isinstance(error, RuntimeError) and any(text in str(error) for text in _NO_MEMORY):
        return True
    return isinstance(error, MemoryError) or _is_a(error, "torch", "OutOfMemoryError")


def ends_all(error: BaseException) -> bool:
    """Whether an error in one of many jobs will occur in every other job too, so that all must end.

    True for lack of memory and for an OSError, such as a full disk. Problems with a single file
    raise other exceptions. FFmpeg's errors are about a single file, though some are OSErrors.
    """
    if _is_a(error, "av.error", "FFmpegError"):
        return False
    return isinstance(error, OSError) or lacks_memory(error)


def _is_a(error: BaseException, module: str, name: str) -> bool:
    """Like `isinstance`, but by name: the import takes seconds, and not every command needs it."""
    return any((kind.__module__, kind.__name__) == (module, name) for kind in type(error).__mro__)
