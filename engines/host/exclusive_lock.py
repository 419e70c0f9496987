"""A lock between all llmtop processes of one user, for data that only one may read.

Some engines remove data when it is read. Two llmtop processes that watch such an engine would each
get one part and show wrong numbers. The kernel releases a lock when its holder exits.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from urllib.parse import urlsplit

_HERE = ("localhost", "::1", "0.0.0.0", "::", "")


class ExclusiveLock:
    """The right to read the server at ``url``.

    folder: of the locks, created on demand. With None, or an unusable folder, there is no lock:
    numbers that are wrong only if another process reads too are better than none.
    """

    def __init__(self, folder: Path | None, url: str) -> None:
        parts = urlsplit(url)
        host = parts.hostname or ""
        # These names all mean this machine.
        where = "this machine" if host in _HERE or host.startswith("127.") else host
        port = parts.port or (443 if parts.scheme == "https" else 80)
        import hashlib  # see StateDirectory.socket_path

        mark = hashlib.sha256(f"{where}:{port}".encode(errors="replace")).hexdigest()[:16]
        self._path = folder / f"{mark}.lock" if folder is not None else None
        self._fd: int | None = None

    def take(self) -> bool:
        """Whether this process holds the lock;

        takes it if it is free. Cheap: call before a read.
        """
        if self._fd is not None or self._path is None:
            return True
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError:
            return True
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            return False
        self._fd = fd
        return True

    def release(self) -> None:
        """Release the lock."""
        fd, self._fd = self._fd, None
        if fd is not None:
            with contextlib.suppress(OSError):
                os.close(fd)
