"""Saves a picture of the screen to a file."""

from __future__ import annotations

import os
import time
from pathlib import Path

from platformdirs import user_state_path


def save(svg: str, now: float) -> Path:
    """Write a picture into the current folder, else into the state directory; return its path.

    now: unix seconds. The name contains the time, and a number if a file of the same second exists;
    no file is overwritten. Raises OSError if neither folder can be written.
    """
    stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(now))
    state_folder = user_state_path("llmtop") / "pictures"
    for folder in (Path.cwd(), state_folder):
        try:
            if folder == state_folder:
                state_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            return _write(folder, f"llmtop-{stamp}", svg)
        except OSError:
            if folder == state_folder:
                raise
    raise AssertionError("one of them returned or raised")


def _write(folder: Path, stem: str, svg: str) -> Path:
    number = 1
    while True:
        path = folder / (f"{stem}.svg" if number == 1 else f"{stem}-{number}.svg")
        try:
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644), "w") as file:
                file.write(svg)
            return path
        except FileExistsError:
            number += 1
