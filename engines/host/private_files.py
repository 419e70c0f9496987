"""Files and folders that only their owner can access, written atomically."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import threading
from pathlib import Path

from llmtop.engines.host.ownership import is_trusted, user_name


def write_whole(path: Path, data: bytes) -> None:
    """Write a file of mode 0600 atomically: after a crash it is complete or absent."""
    spare = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        fd = os.open(spare, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with open(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(fd)
        spare.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            spare.unlink()
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read_own(path: Path, limit: int) -> bytes:
    """``read_whole`` of a file that belongs to this user or root and is not a link."""
    return _read(path, limit, own=True, flags=os.O_NOFOLLOW)


def read_trusted(path: Path, limit: int) -> bytes:
    """``read_whole`` of a file that belongs to this user or root; links are followed."""
    return _read(path, limit, own=True)


def read_whole(path: Path, limit: int) -> bytes:
    """The content of a regular file of at most ``limit`` bytes; OSError for anything else.

    A pipe would block, and a device may be endless.
    """
    return _read(path, limit)


def _read(path: Path, limit: int, *, own: bool = False, flags: int = 0) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | flags)
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(None, "it is not a regular file")
        if own and not is_trusted(found.st_uid):
            raise PermissionError(errno.EPERM, f"it belongs to the user {user_name(found.st_uid)}")
        if found.st_size > limit:
            raise OSError(None, f"it is larger than {limit:,} bytes")
        data = b""
        # One byte more than the size shows the end of the file. A file object needs five more
        # system calls, once a second for each engine.
        while len(data) < limit and (piece := os.read(fd, max(found.st_size, 4095) + 1)):
            data += piece
        return data[:limit]
    finally:
        os.close(fd)


def make_private(folder: Path) -> bool:
    """Create a folder that only this user can access, or check that it is one."""
    try:
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
            return False
        if stat.S_IMODE(found.st_mode) & 0o077:
            folder.chmod(0o700)
    except OSError:
        return False
    return _only_we_rename(folder.parent)


def _only_we_rename(parent: Path) -> bool:
    """Whether no other user can replace a folder of this user in here."""
    found = parent.stat()
    if found.st_uid not in (0, os.getuid()):
        return False
    shared = stat.S_IMODE(found.st_mode) & 0o022
    return not shared or bool(found.st_mode & stat.S_ISVTX)
