"""What a Python that llmtop starts may import: what is installed, and never the current folder.

The current folder may be anybody's: a ``json.py`` that lies there would run as the operator.
"""

from __future__ import annotations

import os
import site
from collections.abc import Mapping
from pathlib import Path

import llmtop

SAFE_PATH = "PYTHONSAFEPATH"  # as -P, for a Python and those that it starts (3.11 and later)


def import_path(path: str) -> str:
    """A PYTHONPATH in which no entry is empty: that would be the current folder."""
    return os.pathsep.join(entry for entry in path.split(os.pathsep) if entry)


def for_own_code(environ: Mapping[str, str]) -> dict[str, str]:
    """What a Python needs besides ``environ`` to run llmtop's modules and to import nothing else.

    That is the folder that llmtop was imported from, where a fresh Python would not look.
    """
    added = {SAFE_PATH: "1"}
    root = Path(llmtop.__file__).resolve().parent.parent
    known = {Path(at).resolve() for at in (*site.getsitepackages(), site.getusersitepackages())}
    old = import_path(environ.get("PYTHONPATH", ""))
    entries = old.split(os.pathsep) if old else []
    if root not in known and str(root) not in entries:
        entries.insert(0, str(root))
    if entries or "PYTHONPATH" in environ:
        added["PYTHONPATH"] = os.pathsep.join(entries)
    return added
