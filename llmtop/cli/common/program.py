"""The program's name and version, with the commit when it runs from a checkout."""

from __future__ import annotations

import re
from pathlib import Path

import llmtop

NAME = "llmtop"
SHORT = 9  # hexadecimal digits of a commit that are shown
_COMMIT = re.compile(r"[0-9a-f]{40,64}")


def version(root: Path | None = None) -> str:
    """The version, such as ``0.1.0``; in a git checkout with the commit: ``0.1.0 (1a2b3c4d5)``.

    root: the folder above the package, for tests.
    """
    found = commit(root or Path(llmtop.__file__).resolve().parent.parent)
    return f"{llmtop.__version__} ({found[:SHORT]})" if found else llmtop.__version__


def commit(root: Path) -> str:
    """The commit that is checked out in ``root``; "" when it is no checkout or cannot be read.

    It reads git's own files and runs nothing: a git that is called obeys the configuration in the
    folder, and may not be installed.
    """
    try:
        git = root / ".git"
        if git.is_file():  # a work tree of its own: the file names the folder
            git = root / git.read_text().removeprefix("gitdir:").strip()
        head = (git / "HEAD").read_text().strip()
        if head.startswith("ref:"):
            head = _resolve(git, head.removeprefix("ref:").strip())
    except (OSError, ValueError):
        return ""
    return head if _COMMIT.fullmatch(head) else ""


def _resolve(git: Path, ref: str) -> str:
    """The commit of a branch; in its own file, or in packed-refs."""
    shared = git / "commondir"  # of a work tree: where the branches are
    folder = git / shared.read_text().strip() if shared.is_file() else git
    if (folder / ref).is_file():
        return (folder / ref).read_text().strip()
    for line in (folder / "packed-refs").read_text().splitlines():
        found, _, name = line.partition(" ")
        if name == ref:
            return found
    return ""
