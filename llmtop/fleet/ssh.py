"""Runs llmtop on another machine through the user's ssh, with its agent and its configuration.

``ssh://HOST/NAME`` instead of an engine's name runs the whole command on that machine. Output,
terminal and exit code are those of the remote command. llmtop opens no port for it.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from msgspec import Struct

from llmtop import LlmtopError, UsageError

SCHEME = "ssh://"
PROGRAM = "LLMTOP_SSH_PROGRAM"  # a variable: the path of llmtop on the remote machine
FOLLOWED = "LLMTOP_FOLLOW_OUTPUT"  # the remote command ends when its output is no longer read
_HOST = re.compile(r"[A-Za-z0-9_.:%-]+|\[[0-9A-Fa-f:.%]+\]")
_USER = re.compile(r"[A-Za-z0-9_.@\\-]+")
FAILED = 255  # ssh's exit code if it could not connect
NOT_FOUND = 127  # the remote shell's exit code for an unknown command


class Destination(Struct, frozen=True):
    """Where to run. user "" and port 0: those of the ssh configuration."""

    host: str
    user: str = ""
    port: int = 0

    @property
    def shown(self) -> str:
        """``host`` or ``user@host``."""
        return (f"{self.user}@" if self.user else "") + self.host


def is_remote(text: str) -> bool:
    """Whether an argument names an engine on another machine."""
    return text.startswith(SCHEME)


def split(text: str) -> tuple[Destination, str]:
    """The destination and the engine's name of ``ssh://user@host:port/NAME``; name "" if absent.

    Raises UsageError for an invalid address, and for one with a password.
    """
    try:
        parts = urlsplit(text)
        host, port, user = parts.hostname or "", parts.port or 0, parts.username or ""
    except ValueError:
        host, port, user, parts = "", 0, "", urlsplit("")
    if parts.password is not None:
        raise UsageError(
            "an ssh:// address must not contain a password", "ssh asks for it, or uses its agent"
        )
    name = parts.path.removeprefix("/").removesuffix("/")
    return destination(host, user, port), name


def destination(host: str, user: str = "", port: int = 0) -> Destination:
    """A checked destination. UsageError for text that ssh or a shell could interpret otherwise."""
    # ssh would read a host or a user that begins with - as an option.
    sound = _HOST.fullmatch(host) and not host.startswith("-")
    if not sound or (user and (not _USER.fullmatch(user) or user.startswith("-"))):
        raise UsageError(
            "this is not an address for ssh", "write it like ssh://host, ssh://user@host/NAME"
        )
    return Destination(host, user, port)


def forwarded(argv: Sequence[str]) -> tuple[Destination, list[str]] | None:
    """Where a command line runs, and its arguments there; None for this machine.

    Raises UsageError if its engines are on several machines.
    """
    before = list(argv[: argv.index("--")]) if "--" in argv else list(argv)
    after = list(argv[len(before) :])
    found = {place: split(word) for place, word in enumerate(before) if is_remote(word)}
    if not found:
        return None
    where = {destination for destination, _ in found.values()}
    if len(where) > 1:
        raise UsageError(
            "the engines of one command are on several machines", "run one command for each"
        )
    words = [found[place][1] if place in found else word for place, word in enumerate(before)]
    if 0 in found and found[0][1]:
        words.insert(0, "attach")  # an engine without a command opens its dashboard
    # ``ssh://host`` alone and ``attach ssh://host`` open the dashboard of that machine.
    words = [word for word in words if word]
    return where.pop(), ([] if words == ["attach"] else words) + after


def command(
    destination: Destination,
    arguments: Sequence[str],
    *,
    terminal: bool,
    environ: Mapping[str, str],
) -> list[str]:
    """The argument vector of ssh, with each remote argument quoted for the remote shell.

    terminal: allocate one there. environ: of this process. Raises LlmtopError without an ssh.
    """
    ssh = shutil.which("ssh", path=environ.get("PATH"))
    if ssh is None:
        raise LlmtopError("there is no ssh on this machine", "install the OpenSSH client")
    program = environ.get(PROGRAM) or "llmtop"
    # A remote terminal passes on Ctrl+C and a lost connection. Without one the remote command must
    # watch its output itself.
    before = [] if terminal else ["env", f"{FOLLOWED}=1"]
    remote = shlex.join([*before, program, *arguments])
    flags = ["-t"] if terminal else ["-T"]
    flags += ["-p", str(destination.port)] if destination.port else []
    flags += ["-l", destination.user] if destination.user else []
    return [ssh, *flags, "--", destination.host.strip("[]"), remote]


def run_there(
    destination: Destination,
    arguments: Sequence[str],
    *,
    terminal: bool,
    environ: Mapping[str, str] | None = None,
) -> int:
    """Run llmtop at the destination and return its exit code. LlmtopError if it cannot start."""
    environ = os.environ if environ is None else environ
    try:
        code = subprocess.run(
            command(destination, arguments, terminal=terminal, environ=environ), check=False
        ).returncode
    except OSError as error:
        raise LlmtopError(f"ssh cannot be run: {error.strerror or error}") from None
    if code == FAILED:
        raise LlmtopError(
            f"ssh could not connect to {destination.shown}",
            f"try: ssh {destination.shown} llmtop ps",
        )
    if code == NOT_FOUND:
        raise LlmtopError(
            f"the shell of {destination.shown} does not find llmtop",
            f"install it there, or set {PROGRAM} to its path there",
        )
    return code
