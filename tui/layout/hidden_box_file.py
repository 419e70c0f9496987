"""The file that stores which boxes are hidden."""

from __future__ import annotations

from pathlib import Path

import msgspec
from msgspec import Struct

from llmtop.engines.host.ownership import strange_part
from llmtop.engines.host.private_files import make_private, read_own, write_whole
from llmtop.tui.layout.hidden_boxes import known

FILE = "screen.json"
VERSION = 1
MOST_BYTES = 16 * 1024


class _File(Struct):
    version: int
    hidden: tuple[str, ...] = ()


_decode = msgspec.json.Decoder(_File).decode


class HiddenBoxFile:
    """The hidden boxes and their file.

    folder: the state directory; None: keep them only in memory. The file has mode 0600. A file of a
    newer version is neither read nor overwritten.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._path = folder / FILE if folder is not None else None
        self.hidden: frozenset[str] = frozenset()

    def read(self) -> str:
        """Read the file. Returns why it could not be used, "" if it could or does not exist."""
        path = self._path
        if path is None or strange_part(path) is not None:
            return ""
        try:
            found = _decode(read_own(path, MOST_BYTES))
        except FileNotFoundError:
            return ""
        except OSError as error:
            return f"the hidden boxes cannot be read: {path}: {error.strerror}"
        except (msgspec.DecodeError, UnicodeDecodeError):
            return f"all boxes are shown: {path} is damaged; the next change replaces it"
        if found.version > VERSION:
            self._path = None
            return f"all boxes are shown: {path} is from a newer llmtop and is not changed"
        self.hidden = known(found.hidden)
        return ""

    def change(self, hidden: frozenset[str]) -> str:
        """Hide exactly these boxes. Returns why that cannot be stored, "" if it is stored."""
        self.hidden = hidden
        path = self._path
        if path is None:
            return ""
        try:
            path.parent.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not make_private(path.parent):
                return f"not saved: {path.parent} can be accessed by other users"
            data = msgspec.json.encode(_File(VERSION, tuple(sorted(hidden))))
            write_whole(path, msgspec.json.format(data))
        except OSError as error:
            return f"not saved: {path}: {error.strerror}"
        return ""
