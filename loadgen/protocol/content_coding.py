"""Decompresses answers piece by piece, with a limit on the expansion."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

PIECE = 64 * 1024  # bytes that are decompressed at a time
# Deflate compresses a long run of one byte by a factor of 1030, and events that differ by one word
# by 20 to 100. So no stream reaches this limit, and a bomb is detected after the first megabyte.
MOST_TIMES = 256
ALLOWANCE = 1 << 20  # bytes that are allowed in any case
_AUTO = 32 + zlib.MAX_WBITS  # zlib detects a gzip or zlib header
_RAW = -zlib.MAX_WBITS  # deflate without a header, which some servers send
_MEMBER = b"\x1f\x8b"  # the start of a gzip member
_CODINGS = ("gzip", "x-gzip", "deflate")


class Unreadable(Exception):
    """The answer cannot be decompressed. The message is the reason, in a few words."""


def decoder(content_encoding: bytes) -> Inflater | None:
    """The decompressor for this Content-Encoding; None if the answer is not compressed.

    Raises Unreadable for an unknown coding.
    """
    names = [part.strip() for part in content_encoding.decode("latin-1").lower().split(",")]
    coded = [name for name in names if name not in ("", "identity")]
    if not coded:
        return None
    if len(coded) > 1 or coded[0] not in _CODINGS:
        raise Unreadable(
            f"the answer is compressed ({', '.join(coded)[:30]}), which llmtop cannot read:"
            " disable compression at the server or its proxy"
        )
    return Inflater(coded[0])


class Inflater:
    """The decompressor of one answer. name: of the coding."""

    __slots__ = ("_in", "_inflate", "_name", "_out")

    def __init__(self, name: str) -> None:
        self._name = name
        self._inflate = zlib.decompressobj(_AUTO)
        self._in = self._out = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Decompress ``data``, in pieces of at most ``PIECE`` bytes.

        Raises Unreadable for data that is not of this coding or expands beyond ``MOST_TIMES``.
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
                # Another gzip member may follow; other bytes are padding.
                data = self._inflate.unused_data
                more = data.startswith(_MEMBER)
                self._inflate = zlib.decompressobj(_AUTO)
            else:
                data = self._inflate.unconsumed_tail
                # After a full piece, output may remain in the decompressor.
                more = bool(data) or len(piece) == PIECE

    def _piece(self, data: bytes) -> bytes:
        try:
            return self._inflate.decompress(data, PIECE)
        except zlib.error:
            if self._name != "deflate" or self._out or self._in != len(data):
                raise Unreadable(f"the answer is not {self._name} as its header says") from None
        self._inflate = zlib.decompressobj(_RAW)
        try:
            return self._inflate.decompress(data, PIECE)
        except zlib.error:
            raise Unreadable("the answer is not deflate as its header says") from None
