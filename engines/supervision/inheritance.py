"""The environment that an engine inherits: without API keys and modules of the current folder.

Python before 3.11 has no switch for the second. Its module is then run by a short program that
removes the folder from the path. Python processes that such an engine starts still import from the
folder, so no other user may be able to write to it.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

from llmtop.engines.host.installed import interpreter_of
from llmtop.engines.host.ownership import is_trusted
from llmtop.engines.host.safe_text import clean
from llmtop.engines.supervision.preflight import LaunchRefused
from llmtop.interpreter import SAFE_PATH, import_path

# API keys with which llmtop accesses engines, perhaps of other people.
OWN_SECRETS = frozenset({"LLMTOP_API_KEY", "LLMTOP_ADMIN_API_KEY"})
# ``sys`` is built in; no other module is imported while the current folder ("") is in the path.
WITHOUT_FOLDER = (
    "import sys; sys.path[:] = [p for p in sys.path if p]; import runpy; module = sys.argv[1]; "
    "del sys.argv[1]; runpy.run_module(module, run_name='__main__', alter_sys=True)"
)
_NEEDED = (3, 11)
_VERSION = re.compile(r"^version(?:_info)?\s*=\s*(\d+)\.(\d+)", re.M)
_NAMED = re.compile(r"python(\d+)\.(\d+)")
_CFG_CHARS = 10_000


def inherited(environ: Mapping[str, str], given: Mapping[str, str]) -> dict[str, str]:
    """The environment of an engine. environ: llmtop's own. given: variables of the operator."""
    found = {name: value for name, value in environ.items() if name not in OWN_SECRETS}
    found[SAFE_PATH] = "1"
    if "PYTHONPATH" in found:
        found["PYTHONPATH"] = import_path(found["PYTHONPATH"])
    return {**found, **given}


def guarded(command: Sequence[str]) -> tuple[str, ...]:
    """``PYTHON -m MODULE …`` for this Python, without the current folder in its path."""
    if len(command) < 3 or command[1] != "-m" or _is_recent(Path(command[0])):
        return tuple(command)
    return (command[0], "-c", WITHOUT_FOLDER, *command[2:])


def check_folder(command: Sequence[str], folder: Path) -> None:
    """LaunchRefused when an old Python could import files of another user from ``folder``."""
    program = Path(command[0])
    python = program if program.name.startswith("python") else interpreter_of(program)
    version = _version(python) if python is not None else None
    if version is None or version >= _NEEDED:
        return
    try:
        found = folder.stat()
    except OSError:
        return
    if is_trusted(found.st_uid) and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return
    raise LaunchRefused(
        f"{clean(str(program))} runs on Python {version[0]}.{version[1]}, which imports modules"
        f" from the current folder, and other users can write to {clean(str(folder))}",
        "start it in your own folder, or install the engine on Python 3.11 or later",
    )


def _is_recent(python: Path) -> bool:
    """Whether a Python supports PYTHONSAFEPATH."""
    version = _version(python)
    return version is not None and version >= _NEEDED


def _version(python: Path) -> tuple[int, int] | None:
    """Its Python version, found without running it; None: unknown."""
    try:
        with (python.parent.parent / "pyvenv.cfg").open(errors="replace") as file:
            version = _VERSION.search(file.read(_CFG_CHARS))
    except OSError:
        version = None
    try:
        found = version or _NAMED.fullmatch(python.resolve().name)
    except (OSError, RuntimeError):
        found = None
    return (int(found[1]), int(found[2])) if found is not None else None
