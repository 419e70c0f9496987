"""Which boxes are hidden, kept in a file from one screen to the next."""

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
    """folder: the state directory; None keeps it in memory alone.

    The file has mode 0600. One of a newer version is neither used nor written over.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._path = folder / FILE if folder is not None else None
        self.hidden: frozenset[str] = frozenset()

    def read(self) -> str:
        """Use what is kept; why it could not be used, "" when all is well."""
        path = self._path
        if path is None or strange_part(path) is not None:
            return ""
        try:
            found = _decode(read_own(path, MOST_BYTES))
        except FileNotFoundError:
            return ""
        except OSError as error:
            return f"the hidden boxes are not known: {path}: {error.strerror}"
        except (msgspec.DecodeError, UnicodeDecodeError):
            return f"all boxes are shown: {path} is damaged; the next change replaces it"
        if found.version > VERSION:
            self._path = None
            return f"all boxes are shown: {path} is of a newer llmtop; it stays as it is"
        self.hidden = known(found.hidden)
        return ""

    def change(self, hidden: frozenset[str]) -> str:
        """Hide these and no others; why that will not be remembered, "" when it will be."""
        self.hidden = hidden
        path = self._path
        if path is None:
            return ""
        try:
            path.parent.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not make_private(path.parent):
                return f"not remembered: {path.parent} can be accessed by other users"
            data = msgspec.json.encode(_File(VERSION, tuple(sorted(hidden))))
            write_whole(path, msgspec.json.format(data))
        except OSError as error:
            return f"not remembered: {path}: {error.strerror}"
        return ""
