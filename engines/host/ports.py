"""TCP ports: whether a port is free, which process holds it, and whether that is an engine's."""

from __future__ import annotations

import contextlib
import errno
import os
import pwd
import re
import shlex
import socket
from collections.abc import Collection, Iterable, Iterator

from msgspec import Struct

from llmtop import LlmtopError
from llmtop.engines.host.processes import PROC, command_of
from llmtop.engines.host.redaction import redact
from llmtop.engines.host.safe_text import clean

_LISTEN = "0A"  # TCP_LISTEN in /proc/net/tcp (include/net/tcp_states.h)
_SOCKET = re.compile(r"socket:\[(\d+)\]")
_COMMAND_CHARS = 120


class PortError(LlmtopError):
    """A port or an address that cannot be used."""


class Holder(Struct, frozen=True):
    """The process that listens on a port. pid is None for another user's hidden process."""

    pid: int | None
    command: str
    user: str

    def __str__(self) -> str:
        if self.pid is None:
            return f"a process of user {self.user}" if self.user else "a process that is not shown"
        return f"pid {self.pid} ({self.command})"


class Listener(Struct, frozen=True):
    """A listening socket of one process, cheap to check again."""

    pid: int
    fd: int
    inode: int

    def held(self) -> bool:
        """Whether this process still has this socket open."""
        return _inode(self.pid, str(self.fd)) == self.inode


class _Socket(Struct, frozen=True):
    port: int
    state: str
    uid: int
    inode: int


def is_free(host: str, port: int) -> bool:
    """Whether a server could bind this address now. Raises PortError when it never could.

    Servers bind with SO_REUSEADDR, so lingering connections of an earlier server do not count. But
    with this option two sockets can be bound while neither listens. vLLM does this while it loads:
    such a port counts as taken.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, OverflowError, UnicodeError) as error:
        raise PortError(
            f"{clean(host)!r} is not a host name or address that can be resolved",
            "use 127.0.0.1, or the address of one of this machine's interfaces",
        ) from error
    if _binds(family, kind, address, reuse=False):
        return True
    if not _binds(family, kind, address, reuse=True):
        return False
    return any(s.port == port and s.state != _LISTEN for s in _sockets())


def holder(port: int) -> Holder | None:
    """The process that listens on this port, None without one (or if it is only bound)."""
    listening = {s.inode: s for s in _sockets() if s.port == port and s.state == _LISTEN}
    if not listening:
        return None
    everyone = (int(name) for name in os.listdir(PROC) if name.isdigit())
    found = _holding(everyone, listening)
    if found is None:
        uid = next(iter(listening.values())).uid
        return Holder(None, "", _user(uid))
    command = clean(shlex.join(redact(command_of(found.pid))))
    return Holder(found.pid, command[:_COMMAND_CHARS], _user(listening[found.inode].uid))


def next_free(host: str, start: int, taken: Collection[int] = ()) -> int:
    """The first port from ``start`` on that is free and not in ``taken``."""
    for port in range(start, 65536):
        if port not in taken and is_free(host, port):
            return port
    raise PortError(f"no port from {start} on is free", "choose one with --port")


def listener(pids: Iterable[int], port: int) -> Listener | None:
    """The listening socket of this port in one of these processes, else None."""
    inodes = {s.inode for s in _sockets() if s.port == port and s.state == _LISTEN}
    return _holding(pids, inodes) if inodes else None


def _binds(family: int, kind: int, address: tuple[object, ...], *, reuse: bool) -> bool:
    with socket.socket(family, kind) as trial:
        if reuse:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(address)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            host, port = clean(str(address[0])), address[1]
            if error.errno == errno.EACCES:
                raise PortError(
                    f"port {port} needs privileges that you do not have",
                    "use a port from 1024 on",
                ) from error
            raise PortError(
                f"{host} is not an address of this machine",
                "use 127.0.0.1, or the address of one of its interfaces",
            ) from error
    return True


def _sockets() -> Iterator[_Socket]:
    for name in ("tcp", "tcp6"):
        try:
            lines = (PROC / "self/net" / name).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if len(fields) > 9:
                port = int(fields[1].rpartition(":")[2], 16)
                yield _Socket(port, fields[3], int(fields[7]), int(fields[9]))


def _holding(pids: Iterable[int], inodes: Collection[int]) -> Listener | None:
    for pid in pids:
        try:
            fds = os.listdir(PROC / str(pid) / "fd")
        except OSError:
            continue
        for fd in fds:
            inode = _inode(pid, fd)
            if inode in inodes and inode is not None:
                return Listener(pid, int(fd), inode)
    return None


def _inode(pid: int, fd: str) -> int | None:
    try:
        found = _SOCKET.fullmatch(os.readlink(PROC / str(pid) / "fd" / fd))
    except OSError:
        return None
    return int(found[1]) if found else None


def _user(uid: int) -> str:
    with contextlib.suppress(KeyError):
        return pwd.getpwuid(uid).pw_name
    return str(uid)
