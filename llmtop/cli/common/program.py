"""The program's name and version, with the commit when it runs from a checkout."""

from __future__ import annotations

import re
from pathlib import Path

import llmtop

NAME = "llmtop"
SHORT = 9  # number of hexadecimal digits shown of a commit
_COMMIT = re.compile(r"[0-9a-f]{40,64}")


def version(root: Path | None = None) -> str:
    """The version, ``0.1.0``, or in a git checkout with its commit, ``0.1.0 (1a2b3c4d5)``.

    root: the folder that contains the package; tests pass another one.
    """
    found = commit(root or Path(llmtop.__file__).resolve().parent.parent)
    return f"{llmtop.__version__} ({found[:SHORT]})" if found else llmtop.__version__


def commit(root: Path) -> str:
    """The commit that is checked out in ``root``; "" when it is no checkout or cannot be read.

    It reads the files of git and does not run git. git may not be installed, and it would obey the
    configuration in the folder.
    """
    try:
        git = root / ".git"
        if git.is_file():  # in a linked work tree, this file contains the path of the folder
            git = root / git.read_text().removeprefix("gitdir:").strip()
        head = (git / "HEAD").read_text().strip()
        if head.startswith("ref:"):
            head = _resolve(git, head.removeprefix("ref:").strip())
    except (OSError, ValueError):
        return ""
    return head if _COMMIT.fullmatch(head) else ""


def _resolve(git: Path, ref: str) -> str:
    """The commit of a branch, from the branch's own file or from packed-refs; "" if in neither."""
    shared = git / "commondir"  # in a linked work tree, the path of the folder with the branches
    folder = git / shared.read_text().strip() if shared.is_file() else git
    if (folder / ref).is_file():
        return (folder / ref).read_text().strip()
    for line in (folder / "packed-refs").read_text().splitlines():
        found, _, name = line.partition(" ")
        if name == ref:
            return found
    return ""
