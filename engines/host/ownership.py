"""Whose a file or a process is: what another user can change is not obeyed.

What is in the state folder decides which processes are ended and which programs are started, so
each component of its path must be this user's or root's. So must links on the way, and where they
lead. Who is root can do all of it anyhow.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path

TRUSTED = (0,)
_MOST_LINKS = 40  # as the kernel follows: path_resolution(7)
_UID_MAP = Path("/proc/self/uid_map")
_OVERFLOW = Path("/proc/sys/kernel/overflowuid")
_ALL_USERS = 2**32 - 1  # of user_namespaces(7): the length of the first namespace's map


def is_trusted(uid: int) -> bool:
    """Whether this user may say what llmtop does: it is this one, or root."""
    return uid in (os.geteuid(), *TRUSTED)


def user_name(uid: int | None) -> str:
    """The name of a user, the number where it has none, "" when not known."""
    if uid is None:
        return ""
    with contextlib.suppress(KeyError):
        return pwd.getpwuid(uid).pw_name
    return str(uid)


def strange_part(path: Path) -> tuple[Path, str] | None:
    """The first component of a path that another user owns, and that user; None as a rule.

    What is not there yet is nobody's. Links are followed as the kernel does.
    """
    unmapped = _unmapped()
    for part, found in _components(Path(os.path.abspath(path))):
        # In a user namespace all users of the machine around it are one: the folders above ours
        # are theirs. Ours never are.
        outer = found.st_uid == unmapped and stat.S_ISDIR(found.st_mode) and part != path
        if not is_trusted(found.st_uid) and not outer:
            return part, user_name(found.st_uid)
    return None


def _components(path: Path) -> Iterator[tuple[Path, os.stat_result]]:
    at, left, links = Path("/"), list(path.parts[1:]), 0
    with contextlib.suppress(OSError):
        yield at, at.lstat()
        while left:
            name = left.pop(0)
            if name == "..":
                at = at.parent
                continue
            part = at / name
            found = part.lstat()
            yield part, found
            if not stat.S_ISLNK(found.st_mode):
                at = part
                continue
            links += 1
            if links > _MOST_LINKS:
                return
            target = Path(os.readlink(part))
            if target.is_absolute():
                at = Path("/")
                left[:0] = target.parts[1:]
            else:
                left[:0] = target.parts


def _unmapped() -> int | None:
    """The user that stands for those outside of this user namespace; None in the first one."""
    try:
        first = _UID_MAP.read_text().split()
        if int(first[2]) >= _ALL_USERS:
            return None
        return int(_OVERFLOW.read_text())
    except (OSError, ValueError, IndexError):
        return None
