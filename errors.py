"""The one exception that means: the user can mend this."""


class UserError(ValueError):
    """The message names the file or key, what was found and what to do, in one line."""
