"""Checks llmtop's folders for write access of others: they determine which programs it starts."""

from __future__ import annotations

import shlex
import stat
from collections.abc import Iterator
from os import geteuid
from pathlib import Path

from msgspec import Struct

from llmtop.engines.host.ownership import TRUSTED, user_name


class Permissions(Struct, frozen=True):
    """One file or folder that other users can change, in one sentence, and the remedy."""

    path: Path
    text: str
    hint: str


def exposures(paths: tuple[Path, ...]) -> Iterator[Permissions]:
    """The ``paths`` that another user owns or can write to; missing paths are skipped."""
    me = geteuid()
    for path in paths:
        try:
            found = path.stat()
        except OSError:
            continue
        if found.st_uid not in (me, *TRUSTED):
            user = user_name(found.st_uid)
            text = f"{path} belongs to the user {user}, who can change what is in it"
            hint = f"change its owner: sudo chown -R {user_name(me)} {shlex.quote(str(path))}"
            yield Permissions(path, text, hint)
            continue
        mode = stat.S_IMODE(found.st_mode)
        who = [word for bit, word in ((0o020, "its group"), (0o002, "everybody")) if mode & bit]
        if who:
            text = f"{path} can be written by {' and '.join(who)} (mode {mode:04o})"
            yield Permissions(path, text, f"chmod go-w {shlex.quote(str(path))}")
