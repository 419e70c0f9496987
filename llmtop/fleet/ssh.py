"""llmtop on another machine, through the operator's own ssh: its agent, its configuration, no port.

``ssh://HOST/NAME`` in place of an engine's name runs the whole command on that machine. What it
prints, its terminal and its exit code are those of the command there.
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
PROGRAM = "LLMTOP_SSH_PROGRAM"  # how llmtop is called there
FOLLOWED = "LLMTOP_FOLLOW_OUTPUT"  # the remote command ends when its output is no longer read
_HOST = re.compile(r"[A-Za-z0-9_.:%-]+|\[[0-9A-Fa-f:.%]+\]")
_USER = re.compile(r"[A-Za-z0-9_.@\\-]+")
FAILED = 255  # ssh's own exit code when it did not get there
NOT_FOUND = 127  # the remote shell's


class Destination(Struct, frozen=True):
    """Where to run. user "": as ssh's configuration says. port 0: the same."""

    host: str
    user: str = ""
    port: int = 0

    @property
    def shown(self) -> str:
        """As it is typed."""
        return (f"{self.user}@" if self.user else "") + self.host


def is_remote(text: str) -> bool:
    """Whether an argument names an engine of another machine."""
    return text.startswith(SCHEME)


def split(text: str) -> tuple[Destination, str]:
    """``ssh://user@host:port/NAME`` as destination and name, "" without one. UsageError."""
    try:
        parts = urlsplit(text)
        host, port, user = parts.hostname or "", parts.port or 0, parts.username or ""
    except ValueError:
        host, port, user, parts = "", 0, "", urlsplit("")
    if parts.password is not None:
        raise UsageError("a password in an ssh:// address", "ssh asks for it, or its agent knows")
    name = parts.path.removeprefix("/").removesuffix("/")
    return destination(host, user, port), name


def destination(host: str, user: str = "", port: int = 0) -> Destination:
    """Where to run. UsageError for what ssh or a shell could take for something else."""
    # A host or a user that began with - would be an option of ssh.
    sound = _HOST.fullmatch(host) and not host.startswith("-")
    if not sound or (user and (not _USER.fullmatch(user) or user.startswith("-"))):
        raise UsageError(
            "this is not an address for ssh", "write it like ssh://host, ssh://user@host/NAME"
        )
    return Destination(host, user, port)


def forwarded(argv: Sequence[str]) -> tuple[Destination, list[str]] | None:
    """Where a command line is to run, and its arguments there; None: here.

    Every engine in it must be on the same machine. UsageError otherwise.
    """
    before = list(argv[: argv.index("--")]) if "--" in argv else list(argv)
    after = list(argv[len(before) :])
    found = {place: split(word) for place, word in enumerate(before) if is_remote(word)}
    if not found:
        return None
    where = {destination for destination, _ in found.values()}
    if len(where) > 1:
        raise UsageError("engines on several machines in one command", "one command for each")
    words = [found[place][1] if place in found else word for place, word in enumerate(before)]
    if 0 in found and found[0][1]:
        words.insert(0, "attach")  # an engine without a command: its dashboard
    # ``ssh://host`` alone and ``attach ssh://host`` are the dashboard of that machine.
    words = [word for word in words if word]
    return where.pop(), ([] if words == ["attach"] else words) + after


def command(
    destination: Destination,
    arguments: Sequence[str],
    *,
    terminal: bool,
    environ: Mapping[str, str],
) -> list[str]:
    """The argument vector of ssh. The remote shell sees each argument quoted."""
    ssh = shutil.which("ssh", path=environ.get("PATH"))
    if ssh is None:
        raise LlmtopError("there is no ssh on this machine", "install OpenSSH's client")
    program = environ.get(PROGRAM) or "llmtop"
    # With a terminal the command there hears of Ctrl+C and of a lost connection; without one it is
    # to look for itself.
    before = [] if terminal else ["env", f"{FOLLOWED}=1"]
    there = shlex.join([*before, program, *arguments])
    flags = ["-t"] if terminal else ["-T"]
    flags += ["-p", str(destination.port)] if destination.port else []
    flags += ["-l", destination.user] if destination.user else []
    return [ssh, *flags, "--", destination.host.strip("[]"), there]


def run_there(
    destination: Destination,
    arguments: Sequence[str],
    *,
    terminal: bool,
    environ: Mapping[str, str] | None = None,
) -> int:
    """Run llmtop there and return its exit code. LlmtopError when it could not be run."""
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
            f"there is no llmtop on {destination.shown} that its shell finds",
            f"install it there, or set {PROGRAM} to its path there",
        )
    return code
