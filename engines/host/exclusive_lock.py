"""A lock between all llmtop processes of one user, for data that only one may read.

Some engines remove data when it is read. Two llmtop processes that watch such an engine would each
get one part and show wrong numbers. The kernel releases a lock when its holder exits. The lock file
holds what its holder publishes for the others.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import zlib
from pathlib import Path
from urllib.parse import urlsplit

from llmtop.engines.host.private_files import read_own

MOST_BYTES = 256 * 1024  # that are published
_HERE = ("localhost", "::1", "0.0.0.0", "::", "")
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


class ExclusiveLock:
    """The right to read the server at ``url``.

    folder: of the locks, created on demand. With None, or an unusable folder, there is no lock:
    numbers that are wrong only if another process reads too are better than none.
    background: take it only while no other reader wants it. The holder looks at ``wanted`` and
    releases the lock.
    """

    def __init__(self, folder: Path | None, url: str) -> None:
        parts = urlsplit(url)
        host = parts.hostname or ""
        # One server has several names; these all mean this machine.
        where = "this machine" if host in _HERE or host.startswith("127.") else host
        port = parts.port or (443 if parts.scheme == "https" else 80)
        import hashlib  # see StateDirectory.socket_path

        mark = hashlib.sha256(f"{where}:{port}".encode(errors="replace")).hexdigest()[:16]
        self._path = folder / f"{mark}.lock" if folder is not None else None
        self._wish_path = folder / f"{mark}.wanted" if folder is not None else None
        self._fd: int | None = None
        self._wish: int | None = None
        self.background = False

    @property
    def held(self) -> bool:
        """Whether this process holds the lock, or there is none."""
        return self._fd is not None or self._path is None

    def take(self) -> bool:
        """Whether this process has the lock; takes it if it is free. Cheap: call before a read."""
        if self.held or self._path is None:
            return True
        if self.background:
            if self.wanted():
                return False
        elif self._wish is None:
            self._wish = _locked(self._wish_path, fcntl.LOCK_SH)
        try:
            self._fd = _open(self._path)
        except OSError:
            return True
        if not _lock(self._fd, fcntl.LOCK_EX):
            os.close(self._fd)
            self._fd = None
            return False
        return True

    def wanted(self) -> bool:
        """Whether a reader that is not in the background wants it or has it."""
        fd = _locked(self._wish_path, fcntl.LOCK_EX)
        if fd is not None:
            os.close(fd)
        return fd is None and self._wish_path is not None and self._wish_path.exists()

    def publish(self, data: bytes) -> None:
        """Let the others know this, of at most ``MOST_BYTES``. Only for its holder."""
        if self._fd is None or len(data) > MOST_BYTES:
            return
        whole = b"%08x " % zlib.crc32(data) + data
        with contextlib.suppress(OSError):
            os.pwrite(self._fd, whole, 0)
            os.ftruncate(self._fd, len(whole))

    def published(self) -> bytes:
        """What the last holder published; empty while it is being written, or without any."""
        if self._path is None:
            return b""
        try:
            found = read_own(self._path, MOST_BYTES + 9)
        except OSError:
            return b""
        return found[9:] if found[:9] == b"%08x " % zlib.crc32(found[9:]) else b""

    def release(self) -> None:
        """Release the lock, and no longer want it."""
        for fd in (self._fd, self._wish):
            if fd is not None:
                with contextlib.suppress(OSError):
                    os.close(fd)
        self._fd = self._wish = None


def _open(path: Path) -> int:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return os.open(path, _FLAGS, 0o600)


def _lock(fd: int, kind: int) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _locked(path: Path | None, kind: int) -> int | None:
    """A descriptor that holds a lock of this kind on the file, None where there is none."""
    if path is None:
        return None
    try:
        fd = _open(path)
    except OSError:
        return None
    if _lock(fd, kind):
        return fd
    os.close(fd)
    return None
