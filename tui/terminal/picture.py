"""A picture of the screen, as a file."""

from __future__ import annotations

import os
import time
from pathlib import Path

from platformdirs import user_state_path


def keep(svg: str, now: float) -> Path:
    """Write it beside the person's own files, or where that cannot be, into our state directory.

    The name has the time in it, and a number where there is one of this second already; nothing is
    ever written over. OSError when it can be written nowhere.
    """
    stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(now))
    ours = user_state_path("llmtop") / "pictures"
    for folder in (Path.cwd(), ours):
        try:
            if folder == ours:
                ours.mkdir(mode=0o700, parents=True, exist_ok=True)
            return _write(folder, f"llmtop-{stamp}", svg)
        except OSError:
            if folder == ours:
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
