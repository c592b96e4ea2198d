"""The one exception that means: the user can mend this; how others are told in one line, and which
of them end a batch of jobs.
"""

# How torch's allocator for the CPU names itself where there is no memory; CUDA without torch's own.
_NO_MEMORY = ("DefaultCPUAllocator", "CUDA error: out of memory")


class UserError(ValueError):
    """The message names the file or key, what was found and what to do, in one line."""


def in_one_line(error: Exception) -> str:
    """Why a job of many failed: the message of a UserError; of another exception its kind, too."""
    if isinstance(error, UserError):
        return str(error)
    message = " ".join(str(error).split())
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def lacks_memory(error: BaseException) -> bool:
    """Whether there was not enough memory, of the machine or of a GPU."""
    if isinstance(error, RuntimeError) and any(text in str(error) for text in _NO_MEMORY):
        return True
    return isinstance(error, MemoryError) or _is_a(error, "torch", "OutOfMemoryError")


def ends_all(error: BaseException) -> bool:
    """Whether what went wrong with one job of many goes wrong with every other, too.

    That is a want of memory, and what the system refuses, such as room on a full disk: what is
    wrong with a single file is told by other errors. FFmpeg's are about a file, also where Python
    counts them among its own.
    """
    if _is_a(error, "av.error", "FFmpegError"):
        return False
    return isinstance(error, OSError) or lacks_memory(error)


def _is_a(error: BaseException, module: str, name: str) -> bool:
    """As `isinstance`, without the import, which takes seconds and not every command needs."""
    return any((kind.__module__, kind.__name__) == (module, name) for kind in type(error).__mro__)
