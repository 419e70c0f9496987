"""A user of this machine for one test module, who can run llmtop and owns nothing of the tests."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
from msgspec import Struct

from tests.fleet.sshd import script, skip
from tests.folders import ROOT
from tests.started import RUN

SBIN = "/usr/sbin:/sbin:/usr/bin:/bin"
TRIES = 100  # another program may hold the lock of /etc/passwd
PARTS = ("llmtop", "engines", "tui", "loadgen", "themes")
UNUSED = ("site-packages", "test", "tests", "idlelib", "ensurepip", "config-*")
TOOLS = ("mypy*", "ruff*", "pip*", "hypothesis*")


class User(Struct, frozen=True):
    """folder: readable by all, writable by root. program: runs llmtop as whoever calls it."""

    name: str
    uid: int
    folder: Path
    program: Path


@contextmanager
def second_user() -> Iterator[User]:
    """Add a user with a home; afterwards end his processes and delete him.

    The test is skipped where that cannot be done.
    """
    if os.geteuid() != 0:
        skip("only root can add a user")
    if not all(shutil.which(name, path=SBIN) for name in ("useradd", "userdel")):
        skip("useradd is not installed (apt-get install passwd)")
    name = f"llmtop-{secrets.token_hex(4)}"
    folder = Path(tempfile.mkdtemp(prefix=f"{name}-"))
    try:
        folder.chmod(0o755)
        if not for_all(folder):
            skip(f"other users cannot read {folder.parent}")
        program = install(folder)
        home = folder / "home"
        # No password, and not locked: sshd lets a key in.
        account("useradd", "--home-dir", str(home), "--no-create-home", "--shell", "/bin/sh",
                "--password", "*", "--no-log-init", name)  # fmt: skip
        try:
            found = pwd.getpwnam(name)
            home.mkdir(0o700)
            os.chown(home, found.pw_uid, found.pw_gid)
            yield User(name, found.pw_uid, folder, program)
            end_all_of(found.pw_uid)
        finally:
            account("userdel", "--force", name)
    finally:
        shutil.rmtree(folder)


def account(tool: str, *arguments: str) -> None:
    """Change the accounts of this machine; skip where it takes no change."""
    said = ""
    for _ in range(TRIES):
        done = subprocess.run(
            [tool, *arguments], env={**os.environ, "PATH": SBIN},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode == 0:
            return
        said = done.stderr.strip()
        if "lock" not in said:
            break
        time.sleep(0.1)
    skip(f"{tool}: {said}")


def install(folder: Path) -> Path:
    """llmtop for every user: this checkout, its packages and its Python.

    What others cannot read, such as what is in root's home, is copied.
    """
    python, environ = Path(sys.executable).resolve(), []
    stdlib, base = Path(sysconfig.get_path("stdlib")), Path(sys.base_prefix)
    if not (for_all(python) and for_all(stdlib / "os.py")):
        shutil.copytree(
            stdlib, folder / "python" / "lib" / stdlib.name, symlinks=True,
            ignore=shutil.ignore_patterns(*UNUSED),
        )  # fmt: skip
        for library in (base / "lib").glob("libpython*.so*"):
            shutil.copy(library, folder / "python" / "lib")
        (folder / "python" / "bin").mkdir()
        python = Path(shutil.copy(python, folder / "python" / "bin"))
        environ.append(f"LD_LIBRARY_PATH={folder / 'python' / 'lib'}")
    root, packages = ROOT, Path(sysconfig.get_path("purelib"))
    if not for_all(root / "llmtop" / "__init__.py"):
        for part in PARTS:
            shutil.copytree(root / part, folder / "checkout" / part, symlinks=True)
        root = folder / "checkout"
    if not for_all(packages / "click" / "__init__.py"):
        ignore = shutil.ignore_patterns(*TOOLS)
        packages = Path(shutil.copytree(packages, folder / "packages", ignore=ignore))
    environ += [
        f"PYTHONPATH={root}:{packages}",
        f"TMPDIR={folder / 'home'}",
        f"{RUN}={os.environ[RUN]}",
        "LLMTOP_HISTORY=off",
    ]
    program = folder / "llmtop"
    words = " ".join(f"'{word}'" for word in (*environ, str(python)))
    script(program, f'exec env {words} -m llmtop "$@"')
    return program


def for_all(path: Path) -> bool:
    """Whether every user may read a file or look into a folder."""
    found = path.resolve()
    if not found.exists():
        return False
    return bool(found.stat().st_mode & 0o004) and all(
        parent.stat().st_mode & 0o001 for parent in found.parents
    )


def end_all_of(uid: int) -> None:
    """Kill each process of a user: he exists for these tests alone."""
    for _ in range(TRIES):
        living = [one for one in psutil.process_iter() if runs_as(one, uid)]
        if not living:
            return
        for process in living:
            with suppress(psutil.Error):
                process.kill()
        time.sleep(0.1)


def runs_as(process: psutil.Process, uid: int) -> bool:
    try:
        return process.uids().real == uid and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False  # it has ended
