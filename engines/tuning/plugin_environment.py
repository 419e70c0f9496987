"""The variables by which an engine's Python imports llmtop's plugin for it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

INSIDE = Path(__file__).resolve().parent / "inside"  # what all plugins share


def plugin_environment(
    folders: Sequence[Path], live_socket: Path, base: Mapping[str, str]
) -> dict[str, str]:
    """Variables to add to ``base``. folders: those of the plugin and of what it imports."""
    paths = [str(folder) for folder in folders]
    # At a restart ``base`` is the earlier engine's environment, which has the plugin already.
    inherited = base.get("PYTHONPATH", "").split(os.pathsep)
    paths += [folder for folder in inherited if folder and folder not in paths]
    return {
        "PYTHONPATH": os.pathsep.join(paths),
        "LLMTOP_LIVE_SOCKET": str(live_socket),
        "PYTHONUNBUFFERED": "1",  # the log is a file, and its last lines show why an engine died
    }
