"""The one exception that means: the user can mend this; and how others are told in one line."""


class UserError(ValueError):
    """The message names the file or key, what was found and what to do, in one line."""


def in_one_line(error: Exception) -> str:
    """Why a job of many failed: the message of a UserError; of another exception its kind, too."""
    if isinstance(error, UserError):
        return str(error)
    message = " ".join(str(error).split())
    return f"{type(error).__name__}: {message}" if message else type(error).__name__
