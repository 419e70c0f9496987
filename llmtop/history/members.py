"""The members of a recording: gzip (RFC 1952), each with its own length and start in its header.

A reader finds a moment by hopping over the headers; ``zcat`` sees one text.
"""

from __future__ import annotations

import os
import struct
import zlib

from msgspec import Struct

from llmtop.history.fact_codec import FAR, RecordingError

# ID1 ID2, deflate, FEXTRA, no time, no hint, unknown system, length of the extra field; then one
# subfield "LT" of 16 bytes: the length of the member (0: not ended) and the unix time of its start.
_HEADER = struct.Struct("<4sIBBH2sHQd")
_START = b"\x1f\x8b\x08\x04"
_EXTRA = 20
HEADER_BYTES = _HEADER.size
_TRAILER = struct.Struct("<II")
TEXT_BYTES = 64 * 2**20  # of one member: more is no recording, but a bomb
MOST_MEMBERS = 600_000  # more than a year of minutes
LEVEL = 6


class Member(Struct, frozen=True):
    """One member. offset, length: bytes in the file; start: unix seconds. whole: it was ended."""

    offset: int
    length: int
    start: float
    whole: bool = True


def header(length: int, start: float) -> bytes:
    """The header of a member."""
    return _HEADER.pack(_START, 0, 0, 255, _EXTRA, b"LT", 16, length, start)


def trailer(crc: int, size: int) -> bytes:
    """The end of a member: the checksum and the length of its text."""
    return _TRAILER.pack(crc, size & 0xFFFFFFFF)


def index(fd: int) -> list[Member]:
    """All members of a file, in its order; the last one may not have been ended.

    RecordingError when the file does not begin with one.
    """
    size = os.fstat(fd).st_size
    found: list[Member] = []
    at = 0
    while at + HEADER_BYTES <= size and len(found) < MOST_MEMBERS:
        begun = _HEADER.unpack(os.pread(fd, HEADER_BYTES, at))
        start, time = begun[0], begun[8]
        if (start, begun[4], begun[5], begun[6]) != (_START, _EXTRA, b"LT", 16):
            break  # damaged: what is before it can be read
        if not 0 <= time < FAR:
            break
        length = begun[7]
        whole = HEADER_BYTES < length <= size - at
        found.append(Member(at, length if whole else size - at, time, whole))
        if not whole:
            break
        at += length
    if not found:
        raise RecordingError("it is not a recording of llmtop")
    return found


def text(fd: int, member: Member, limit: int = TEXT_BYTES) -> bytes:
    """The text of a member, as much of it as there is; RecordingError when it is damaged or
    larger than ``limit`` bytes."""
    # Deflate never enlarges a text by so much: further bytes of the file are not part of this
    # member.
    size = min(member.length - HEADER_BYTES, limit + limit // 8 + 65_536)
    data = os.pread(fd, size, member.offset + HEADER_BYTES)
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        made = inflate.decompress(data, limit)
    except zlib.error as error:
        if member.whole:
            raise RecordingError("the recording is damaged") from error
        return _until_the_damage(data, limit)
    if inflate.unconsumed_tail:
        raise RecordingError(f"a minute of the recording is larger than {limit // 2**20} MiB")
    if member.whole and inflate.unused_data[:8] != trailer(zlib.crc32(made), len(made)):
        raise RecordingError("the recording is damaged (checksum)")
    return made


def beginning(fd: int, member: Member, size: int = 64 * 1024) -> bytes:
    """The first ``size`` bytes of a member's text, without reading all of it."""
    data = os.pread(fd, min(member.length, size) - HEADER_BYTES, member.offset + HEADER_BYTES)
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, size)
    except zlib.error:
        return b""


def _until_the_damage(data: bytes, limit: int) -> bytes:
    """What can be read of a member that was cut off: each second was written on its own."""
    inflate, made = zlib.decompressobj(-zlib.MAX_WBITS), bytearray()
    for at in range(0, len(data), 256):
        try:
            made += inflate.decompress(data[at : at + 256], limit - len(made))
        except zlib.error:
            break
        if len(made) >= limit:
            break
    return bytes(made)
