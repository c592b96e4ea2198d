"""Accounts of the page: names and passwords, and warnings if anybody can use it."""

import os
import stat
from pathlib import Path

from common.errors import UserError
from common.machine import is_loopback
from common.safe_paths import read_plain_file

_MAX_BYTES = 2**20  # of the file of accounts
AUTH_VARIABLE = "DEMO_AUTH"  # USER:PASSWORD; unlike options, it is not visible in process lists

Account = tuple[str, str]


def read_accounts(file: str | None, given: str | None = None) -> list[Account]:
    """Read the accounts from `file`, which has a line USER:PASSWORD for each.

    Without a file, the account is `given`, or else that of the environment. Without all of these
    there is no account, and anybody may use the page.

    Raises:
        UserError: the file cannot be read, or a line is not USER:PASSWORD.
    """
    if file is not None and given is not None:
        raise UserError("--auth gives one account, --auth-file all of them; leave one out")
    if given is not None:
        lines, place = [given or ":"], "--auth"
    elif file is None:
        text, place = os.environ.get(AUTH_VARIABLE, ""), AUTH_VARIABLE
        lines = [text] if text else []
    else:
        place = f"--auth-file {file}"
        try:
            lines = read_plain_file(Path(file), _MAX_BYTES).decode("utf-8-sig").splitlines()
        except UserError as error:
            raise UserError(f"--auth-file {error}") from None
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise UserError(f"{place}: cannot be read: {reason}") from None
    accounts: list[Account] = []
    for number, line in enumerate(lines, 1):
        user, colon, password = line.partition(":")
        if line.strip() and not (user.strip() and colon and password):
            where = "" if given is not None else f"line {number} "
            raise UserError(f"{place}: {where}is not USER:PASSWORD")
        if user.strip() in dict(accounts):  # Gradio would take the last password
            raise UserError(f"{place}: line {number} names the user of an earlier line")
        if line.strip():
            accounts.append((user.strip(), password))  # as Gradio compares them
    if file is not None and not accounts:
        raise UserError(f"{place}: is empty; write a line USER:PASSWORD, or leave the option out")
    return accounts


def warnings(
    host: str, file: str | None, accounts: list[Account], given: str | None = None
) -> list[str]:
    """Warnings for the person who starts the page; the arguments are those of `read_accounts`."""
    found = []
    if given is not None:
        found.append(
            "warning: --auth: other users of this machine see the password in its list of "
            f"processes; --auth-file FILE or {AUTH_VARIABLE} hides it"
        )
    if not accounts and not is_loopback(host):
        found.append(
            f"warning: --host {host} without a password: whoever reaches this machine can use the "
            f"page; give --auth or --auth-file, or set {AUTH_VARIABLE}=USER:PASSWORD"
        )
    if file is not None and stat.S_IMODE(Path(file).stat().st_mode) & 0o077:
        found.append(f"warning: --auth-file {file}: others can read it; chmod 600 {file}")
    return found
