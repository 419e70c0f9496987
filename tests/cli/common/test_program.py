"""The version that ``llmtop --version`` shows, and the commit in a checkout."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmtop import __version__
from llmtop.cli.common.program import commit, version

SHA = "0123456789abcdef0123456789abcdef01234567"


def checkout(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    "files",
    [
        {".git/HEAD": "ref: refs/heads/main\n", ".git/refs/heads/main": f"{SHA}\n"},
        {".git/HEAD": "ref: refs/heads/main\n", ".git/packed-refs": f"# x\n{SHA} refs/heads/main"},
        {".git/HEAD": f"{SHA}\n"},
        {
            ".git": "gitdir: shared/worktrees/one\n",
            "shared/worktrees/one/HEAD": "ref: refs/heads/one\n",
            "shared/worktrees/one/commondir": "../..\n",
            "shared/refs/heads/one": f"{SHA}\n",
        },
    ],
    ids=["branch", "packed", "detached", "worktree"],
)
def test_the_commit_of_a_checkout_is_shown(tmp_path: Path, files: dict[str, str]) -> None:
    root = checkout(tmp_path, files)
    assert commit(root) == SHA
    assert version(root) == f"{__version__} ({SHA[:9]})"


@pytest.mark.parametrize(
    "files",
    [
        {},
        {".git/HEAD": "ref: refs/heads/new\n"},
        {".git/HEAD": "\x1b[2J\n"},
        {".git": "gitdir: nowhere\n"},
    ],
    ids=["installed", "no commit yet", "hostile", "broken"],
)
def test_without_a_commit_it_is_the_version_alone(tmp_path: Path, files: dict[str, str]) -> None:
    assert version(checkout(tmp_path, files)) == __version__
