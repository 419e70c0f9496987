"""The gzip members of a recording (RFC 1952). Each header holds the member's length and start.

A reader finds a moment by skipping from header to header. ``zcat`` reads the file as one text.
"""

from __future__ import annotations

import os
import struct
import zlib

from msgspec import Struct

from llmtop.history.fact_codec import LATEST_TIME, RecordingError

# RFC 1952: ID1 ID2, CM 8 (deflate), FLG FEXTRA, MTIME 0, XFL 0, OS 255 (unknown), XLEN. Then one
# subfield "LT" of 16 bytes: the length of the member (0: not ended) and the unix time of its start.
_HEADER = struct.Struct("<4sIBBH2sHQd")
_START = b"\x1f\x8b\x08\x04"
_EXTRA = 20
HEADER_BYTES = _HEADER.size
_TRAILER = struct.Struct("<II")
TEXT_BYTES = 64 * 2**20  # of one member: a limit against decompression bombs
MOST_MEMBERS = 600_000  # more than a year of minutes
LEVEL = 6  # of the compression


class Member(Struct, frozen=True):
    """One member. offset, length: bytes in the file. start: unix seconds. whole: its end was
    written; only the last member can lack it."""

    offset: int
    length: int
    start: float
    whole: bool = True


def header(length: int, start: float) -> bytes:
    """The header of a member. length: in bytes, 0 while it is written. start: unix seconds."""
    return _HEADER.pack(_START, 0, 0, 255, _EXTRA, b"LT", 16, length, start)


def trailer(crc: int, size: int) -> bytes:
    """The end of a member: the CRC-32 and the length in bytes of its text."""
    return _TRAILER.pack(crc, size & 0xFFFFFFFF)


def index(fd: int) -> list[Member]:
    """All members of a file, in its order. The last one may not be whole.

    Stops at the first damaged header. Raises RecordingError when the file does not begin with a
    member.
    """
    size = os.fstat(fd).st_size
    found: list[Member] = []
    at = 0
    while at + HEADER_BYTES <= size and len(found) < MOST_MEMBERS:
        begun = _HEADER.unpack(os.pread(fd, HEADER_BYTES, at))
        start, time = begun[0], begun[8]
        if (start, begun[4], begun[5], begun[6]) != (_START, _EXTRA, b"LT", 16):
            break  # damaged: the members before it can be read
        if not 0 <= time < LATEST_TIME:
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
    """The text of a member. Of a member that is not whole, the part that can be read.

    Raises RecordingError when it is damaged or larger than ``limit`` bytes.
    """
    # A bound on the bytes to read. Deflate enlarges a text by less, so bytes beyond the bound
    # cannot belong to a text of ``limit`` bytes.
    size = min(member.length - HEADER_BYTES, limit + limit // 8 + 65_536)
    data = os.pread(fd, size, member.offset + HEADER_BYTES)
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        made = inflate.decompress(data, limit)
    except zlib.error as error:
        if member.whole:
            raise RecordingError("the recording is damaged") from error
        return _readable_part(data, limit)
    if inflate.unconsumed_tail:
        raise RecordingError(f"a minute of the recording is larger than {limit // 2**20} MiB")
    if member.whole and inflate.unused_data[:8] != trailer(zlib.crc32(made), len(made)):
        raise RecordingError("the recording is damaged (checksum)")
    return made


def beginning(fd: int, member: Member, size: int = 64 * 1024) -> bytes:
    """At most the first ``size`` bytes of a member's text, without reading all of it; b"" where it
    is damaged."""
    data = os.pread(fd, min(member.length, size) - HEADER_BYTES, member.offset + HEADER_BYTES)
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, size)
    except zlib.error:
        return b""


def _readable_part(data: bytes, limit: int) -> bytes:
    """The text of a truncated member up to the damage. The writer flushes each second, so all of
    it but the last second can be decompressed."""
    inflate, made = zlib.decompressobj(-zlib.MAX_WBITS), bytearray()
    for at in range(0, len(data), 256):
        try:
            made += inflate.decompress(data[at : at + 256], limit - len(made))
        except zlib.error:
            break
        if len(made) >= limit:
            break
    return bytes(made)
