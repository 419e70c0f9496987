"""Environment variables that make an engine's Python import llmtop's plugin."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

INSIDE = Path(__file__).resolve().parent / "inside"  # code that all plugins share


def plugin_environment(
    folders: Sequence[Path], live_socket: Path, base: Mapping[str, str]
) -> dict[str, str]:
    """Variables to add to ``base``. folders: of the plugin and of the code that it imports."""
    paths = [str(folder) for folder in folders]
    # At a restart ``base`` is the earlier engine's environment, which has the plugin already.
    inherited = base.get("PYTHONPATH", "").split(os.pathsep)
    paths += [folder for folder in inherited if folder and folder not in paths]
    return {
        "PYTHONPATH": os.pathsep.join(paths),
        "LLMTOP_LIVE_SOCKET": str(live_socket),
        "PYTHONUNBUFFERED": "1",  # the log is a file, and its last lines show why an engine died
    }
