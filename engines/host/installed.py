"""The installed engines and their versions, without running or importing them.

``vllm --version`` takes 10 s or more. The package's metadata is in the program's environment.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from msgspec import Struct

from llmtop.engines.host.safe_text import brief, clean

# kind of engine: the program that it installs, the distribution that has its version
PACKAGES = {
    "vllm": ("vllm", "vllm"),
    "sglang": ("sglang", "sglang"),
    "tensorrt-llm": ("trtllm-serve", "tensorrt-llm"),
}
_PYTHONS = ("python3", "python")
_FOLDERS = (
    "lib/python3*/site-packages",
    "lib64/python3*/site-packages",
    "lib/python3*/dist-packages",  # Debian
    "lib/python3/dist-packages",
    "local/lib/python3*/dist-packages",
)
# The first line of a script written by pip or uv; the second form is for long paths.
_INTERPRETER = re.compile(rb"\A#!(?:/bin/sh\n'''exec' )?\"?(/[^\s\"]+)\"?")
_HEAD = 1024


class InstalledEngine(Struct, frozen=True):
    """An engine on this machine. program: its executable, or the Python that has it installed.

    version: None when its package reports none. remembered: found through the record of an engine
    that was started with it, not through the PATH.
    """

    kind: str
    program: str
    version: str | None
    remembered: bool = False


def find_installed(path: str, remembered: Iterable[str] = ()) -> tuple[InstalledEngine, ...]:
    """The engines on a PATH, and the engines of programs that llmtop used before."""
    found: dict[tuple[str, str], InstalledEngine] = {}
    folders = [Path(part) for part in path.split(os.pathsep) if part.startswith("/")]
    known = [(folder / name, False) for folder in folders for name in _names()]
    known += [(Path(program), True) for program in remembered if program.startswith("/")]
    for program, again in known:
        if not _is_program(program):
            continue
        for kind, (name, package) in PACKAGES.items():
            python = program.name.startswith("python")
            if not python and program.name != name:
                continue
            home, version = _version(program, package)
            if python and version is None:
                continue
            # One environment is one engine, also when several of its programs are found.
            key = (kind, home or str(program))
            found.setdefault(key, InstalledEngine(kind, clean(str(program)), version, again))
    return tuple(found.values())


def _names() -> Iterator[str]:
    yield from (name for name, _ in PACKAGES.values())
    yield from _PYTHONS


def _is_program(path: Path) -> bool:
    try:
        return path.is_file() and os.access(path, os.X_OK)
    except OSError:
        return False


def _version(program: Path, package: str) -> tuple[str | None, str | None]:
    """The folder and the version of a package in the environment that a program belongs to."""
    for prefix in _prefixes(program):
        for pattern in _FOLDERS:
            for folder in sorted(prefix.glob(pattern)):
                version = _version_in(folder, package)
                if version is not None:
                    return str(folder.resolve()), version
    return None, None


def _prefixes(program: Path) -> Iterator[Path]:
    """Candidates of its environment: its folder, its link's target, its interpreter's folder."""
    yield program.parent.parent
    interpreter = interpreter_of(program)
    if interpreter is not None:
        yield interpreter.parent.parent
    try:
        resolved = program.resolve()
    except (OSError, RuntimeError):
        return
    # A virtual environment's Python is a link to the base Python, whose folder is wrong here.
    if resolved != program and not program.name.startswith("python"):
        yield resolved.parent.parent


def interpreter_of(program: Path) -> Path | None:
    """The interpreter in a script's first line; None for a file that is not a script."""
    try:
        with program.open("rb") as file:
            found = _INTERPRETER.match(file.read(_HEAD))
    except OSError:
        return None
    return Path(os.fsdecode(found[1])) if found else None


def _version_in(folder: Path, package: str) -> str | None:
    from importlib.metadata import distributions  # imports mail, zip and csv: 1 MiB

    try:
        for each in distributions(name=package, path=[str(folder)]):
            return brief(str(each.version), 60)
    except Exception:
        # Metadata is a foreign file: an error in parsing it means unknown.
        return None
    return None
