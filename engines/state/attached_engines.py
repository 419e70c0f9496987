"""Engines by URL that open screens show. The history recorder reads them too.

llmtop did not start them, so they have no record. While a screen shows one, it keeps renewing
``attached/URL.json`` in the state directory. An entry older than 15 s is invalid.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import msgspec

from llmtop.engines.host.private_files import make_private, read_own, write_whole

FOLDER = "attached"
FRESH_S = 15.0
OVER_S = 60.0  # an older file is removed
MOST = 32  # engines that the recorder reads
_MOST_BYTES = 4096
_SUFFIX = ".json"
_LONGEST = 200  # of a file's name


class _Shown(msgspec.Struct, frozen=True):
    url: str
    time: float  # unix seconds


class AttachedEngines:
    """root: the state directory. clock: unix seconds. It never raises OSError: if it
    cannot write, the engine is only on the screen."""

    def __init__(self, root: Path, clock: Callable[[], float] = time.time) -> None:
        self._root, self._folder, self._clock = root, root / FOLDER, clock

    def note(self, url: str) -> None:
        """Record that a screen shows this engine now. Skips URLs with passwords and long ones."""
        if "@" in url or not url.startswith(("http://", "https://")):
            return
        name = quote(url, safe="") + _SUFFIX
        if len(name) > _LONGEST:
            return
        with contextlib.suppress(OSError):
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            if make_private(self._folder):
                shown = msgspec.json.encode(_Shown(url, self._clock()))
                write_whole(self._folder / name, shown)

    def fresh(self) -> list[str]:
        """The URLs that a screen has shown within the last seconds."""
        found: list[str] = []
        with contextlib.suppress(OSError):
            for path in sorted(self._folder.glob(f"*{_SUFFIX}")):
                url = self._read(path)
                if url and len(found) < MOST:
                    found.append(url)
        return found

    def _read(self, path: Path) -> str:
        try:
            shown = msgspec.json.decode(read_own(path, _MOST_BYTES), type=_Shown)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError):
            return ""
        age_s = abs(self._clock() - shown.time)  # the clock may have been set back
        if age_s > OVER_S:
            with contextlib.suppress(OSError):
                path.unlink()
        return shown.url if age_s <= FRESH_S else ""
