"""Decompresses answers piece by piece, up to a bound."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

PIECE = 64 * 1024  # bytes that are decompressed at a time
# Deflate packs a long run of one byte 1030 times. Events that differ by a word pack 20 to 100
# times, so this is beyond any stream, and a bomb is noticed after the first megabyte.
MOST_TIMES = 256
ALLOWANCE = 1 << 20
_AUTO = 32 + zlib.MAX_WBITS  # a head of gzip or of zlib, whichever comes
_RAW = -zlib.MAX_WBITS  # deflate without a head, as some servers have it
_MEMBER = b"\x1f\x8b"
_CODINGS = ("gzip", "x-gzip", "deflate")


class Unreadable(Exception):
    """The answer cannot be decompressed; its text says why, in a few words."""


def decoder(content_encoding: bytes) -> Inflater | None:
    """What decodes an answer with this Content-Encoding; None where there is nothing to do.

    Raises Unreadable for a coding that is not known here.
    """
    names = [part.strip() for part in content_encoding.decode("latin-1").lower().split(",")]
    coded = [name for name in names if name not in ("", "identity")]
    if not coded:
        return None
    if len(coded) > 1 or coded[0] not in _CODINGS:
        raise Unreadable(
            f"the answer is compressed ({', '.join(coded)[:30]}), which llmtop cannot read:"
            " turn it off at the server or its proxy"
        )
    return Inflater(coded[0])


class Inflater:
    """One answer's decompressor. name: of its coding, for messages."""

    __slots__ = ("_in", "_inflate", "_name", "_out")

    def __init__(self, name: str) -> None:
        self._name = name
        self._inflate = zlib.decompressobj(_AUTO)
        self._in = self._out = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What ``data`` decompresses to, at most ``PIECE`` bytes at a time.

        Raises Unreadable for data that is not of this coding, or that expands beyond measure.
        """
        self._in += len(data)
        more = bool(data)
        while more:
            piece = self._piece(data)
            self._out += len(piece)
            if self._out > ALLOWANCE + MOST_TIMES * self._in:
                raise Unreadable(f"the {self._name} answer expands more than {MOST_TIMES} times")
            if piece:
                yield piece
            if self._inflate.eof:
                # Another member may follow; what is no member is padding.
                data = self._inflate.unused_data
                more = data.startswith(_MEMBER)
                self._inflate = zlib.decompressobj(_AUTO)
            else:
                data = self._inflate.unconsumed_tail
                more = bool(data) or len(piece) == PIECE  # a full piece may have left some inside

    def _piece(self, data: bytes) -> bytes:
        try:
            return self._inflate.decompress(data, PIECE)
        except zlib.error:
            if self._name != "deflate" or self._out or self._in != len(data):
                raise Unreadable(f"the answer is not the {self._name} that it says") from None
        self._inflate = zlib.decompressobj(_RAW)
        try:
            return self._inflate.decompress(data, PIECE)
        except zlib.error:
            raise Unreadable("the answer is not the deflate that it says") from None
