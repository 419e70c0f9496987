"""Owners of files and processes: llmtop does not use files that another user can change.

The state folder determines which processes llmtop ends and which programs it starts. So each
component of its path must belong to this user or root, and so must links and their targets.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path

TRUSTED = (0,)
_MOST_LINKS = 40  # the kernel's limit: path_resolution(7)
_UID_MAP = Path("/proc/self/uid_map")
_OVERFLOW = Path("/proc/sys/kernel/overflowuid")
_ALL_USERS = 2**32 - 1  # user_namespaces(7): the length of the initial namespace's map


def is_trusted(uid: int) -> bool:
    """Whether llmtop trusts this user: the present user or root."""
    return uid in (os.geteuid(), *TRUSTED)


def user_name(uid: int | None) -> str:
    """The name of a user, its number without a name, "" if unknown."""
    if uid is None:
        return ""
    with contextlib.suppress(KeyError):
        return pwd.getpwuid(uid).pw_name
    return str(uid)


def strange_part(path: Path) -> tuple[Path, str] | None:
    """The first component of a path that an untrusted user owns, and that user; normally None.

    Missing components are skipped. Links are followed as the kernel does.
    """
    unmapped = _unmapped()
    own = str(path)
    for part, found in _components(os.path.abspath(path)):
        # In a user namespace all users outside have one number. They own the parent folders, never
        # llmtop's own folders.
        outer = found.st_uid == unmapped and stat.S_ISDIR(found.st_mode) and part != own
        if not is_trusted(found.st_uid) and not outer:
            return Path(part), user_name(found.st_uid)
    return None


def _components(path: str) -> Iterator[tuple[str, os.stat_result]]:
    """The components of an absolute path. Plain strings: the recorder checks paths each second."""
    at, left, links = "/", path.split("/"), 0
    with contextlib.suppress(OSError):
        yield at, os.lstat(at)
        while left:
            name = left.pop(0)
            if name in ("", "."):
                continue
            if name == "..":
                at = os.path.dirname(at)
                continue
            part = f"{at}/{name}" if at != "/" else f"/{name}"
            found = os.lstat(part)
            yield part, found
            if not stat.S_ISLNK(found.st_mode):
                at = part
                continue
            links += 1
            if links > _MOST_LINKS:
                return
            target = os.readlink(part)
            if target.startswith("/"):
                at = "/"
            left[:0] = target.split("/")


def _unmapped() -> int | None:
    """The user number of all users outside this user namespace; None in the initial namespace."""
    try:
        first = _UID_MAP.read_text().split()
        if int(first[2]) >= _ALL_USERS:
            return None
        return int(_OVERFLOW.read_text())
    except (OSError, ValueError, IndexError):
        return None
