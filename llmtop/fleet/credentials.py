"""Credentials for a Prometheus, only from environment variables or private files."""

from __future__ import annotations

import base64
import stat
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from llmtop import UsageError
from llmtop.engines.host.private_files import read_trusted

PREFIX = "LLMTOP_PROMETHEUS_"
TOKEN, TOKEN_FILE = PREFIX + "TOKEN", PREFIX + "TOKEN_FILE"
USER, PASSWORD, PASSWORD_FILE = PREFIX + "USER", PREFIX + "PASSWORD", PREFIX + "PASSWORD_FILE"
CERTIFICATE, KEY = PREFIX + "CERT", PREFIX + "KEY"
MOST_BYTES = 64 * 1024


class Credentials(Struct, frozen=True):
    """The credentials of a Prometheus. They are never shown, logged or saved.

    authorization: value of the header of that name. certificate, key: paths of a client certificate
    and its key. "": none.
    """

    authorization: str = ""
    certificate: str = ""
    key: str = ""

    @property
    def secrets(self) -> tuple[str, ...]:
        """The token or password, which must not be shown even if a server repeats it."""
        value = self.authorization.partition(" ")[2]
        found = [value] if value else []
        if self.authorization.startswith("Basic "):
            found.append(base64.b64decode(value).decode(errors="replace").partition(":")[2])
        return tuple(one for one in found if one)

    def __repr__(self) -> str:
        return "Credentials(...)"  # keeps secrets out of tracebacks


def from_environment(environ: Mapping[str, str]) -> Credentials:
    """The credentials in environment variables.

    Raises UsageError if they are incomplete or contradictory, or if other users can read a file.
    """
    token = _secret(environ, TOKEN, TOKEN_FILE)
    password = _secret(environ, PASSWORD, PASSWORD_FILE)
    user = environ.get(USER, "")
    if token and (user or password):
        raise UsageError(f"{TOKEN} and {USER} are both set", "set only one of them")
    if bool(user) != bool(password):
        raise UsageError(f"{USER} and {PASSWORD} belong together", f"or set {PASSWORD_FILE}")
    certificate, key = environ.get(CERTIFICATE, ""), environ.get(KEY, "")
    if bool(certificate) != bool(key):
        raise UsageError(f"{CERTIFICATE} and {KEY} belong together", "set both to paths of files")
    if key:
        _private(KEY, key)
    if token:
        return Credentials(f"Bearer {token}", certificate, key)
    if user:
        pair = base64.b64encode(f"{user}:{password}".encode()).decode()
        return Credentials(f"Basic {pair}", certificate, key)
    return Credentials("", certificate, key)


def _secret(environ: Mapping[str, str], variable: str, file_variable: str) -> str:
    """The value of a variable, or the content of the file that ``file_variable`` names."""
    value, path = environ.get(variable, ""), environ.get(file_variable, "")
    if path and not value:
        value = _private(file_variable, path).decode(errors="replace").strip()
    if not (value.isascii() and value.isprintable()):
        # The value is not shown: it is a secret.
        raise UsageError(f"{variable} contains a character that is invalid in an HTTP header")
    return value


def _private(variable: str, path: str) -> bytes:
    """The content of a private file. UsageError if it is unreadable or others can read it."""
    try:
        mode = Path(path).stat().st_mode
        if stat.S_IMODE(mode) & 0o077:
            raise UsageError(
                f"other users can read the file of {variable}: {path}", f"chmod 600 {path}"
            )
        return read_trusted(Path(path), MOST_BYTES)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise UsageError(f"{variable}: {path} cannot be read: {why.lower()}") from None
