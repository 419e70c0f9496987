"""Writes a recording: one line for each fact, one gzip member for each minute."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

from llmtop import UsageError
from llmtop.history.fact_codec import RecordingError, encode
from llmtop.history.facts import EndFact, Fact, Head
from llmtop.history.members import LEVEL, header, trailer

MEMBER_S = 60.0  # seconds in one member: a reader that seeks decompresses at least one member
MEMBER_BYTES = 8 * 2**20  # of text, before compression, at which the next member begins
MOST_BYTES = 4 * 2**30  # of a whole recording, to protect the disk
SUFFIX = ".llmtop"


class RecordingWriter:
    """Writes one new recording. Not thread-safe.

    keyframe: returns the full state at a time in unix seconds. Each member begins with it, so that
    a reader needs no earlier member. Raises UsageError where the file exists or cannot be created.
    After ``write`` the kernel has all data, so the end of this process loses none of it.
    """

    def __init__(
        self, path: Path, head: Head, keyframe: Callable[[float], Iterable[Fact]] = lambda time: ()
    ) -> None:
        self.path = path
        self.bytes_written = 0
        self._head, self._keyframe = head, keyframe
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            self._fd = os.open(path, flags, 0o600)
        except FileExistsError:
            raise UsageError(f"{path} exists already", "choose another file name") from None
        except OSError as error:
            raise UsageError(f"{path} cannot be written: {_why(error)}") from None
        self._deflate = zlib.compressobj(LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
        self._offset, self._began = 0, head.time
        self._crc = self._text_bytes = 0
        self._open_member = self._closed = False

    def write(self, time: float, facts: Iterable[Fact]) -> None:
        """Append facts. time: unix seconds; it decides when the next member begins.

        Raises RecordingError when they cannot be written, the recording was closed, or it has
        reached ``MOST_BYTES``.
        """
        full = time - self._began >= MEMBER_S or self._text_bytes >= MEMBER_BYTES
        if self._closed:
            raise RecordingError(f"{self.path} was ended")
        if self.bytes_written > MOST_BYTES:
            raise RecordingError(f"{self.path} has reached {MOST_BYTES // 2**30} GiB")
        if self._open_member and (full or time < self._began):
            self._end_member()
        if not self._open_member:
            self._begin_member(time)
        self._put(facts)

    def close(self, time: float, reason: str = "") -> None:
        """Write the last line and end the recording. reason: why it ends, in a few words.

        A second call does nothing. Raises RecordingError when not all of it could be written.
        """
        if self._closed:
            return
        try:
            self.write(time, [EndFact(time, reason)])
            self._end_member()
        finally:
            self._closed = True
            os.close(self._fd)

    def _begin_member(self, time: float) -> None:
        self._offset, self._began = self.bytes_written, time
        self._crc = self._text_bytes = 0
        self._deflate = zlib.compressobj(LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
        self._emit(header(0, time))
        self._open_member = True
        from llmtop.values import replace

        self._put([replace(self._head, time=time), *self._keyframe(time)])

    def _end_member(self) -> None:
        self._emit(self._deflate.flush(zlib.Z_FINISH) + trailer(self._crc, self._text_bytes))
        self._open_member = False
        try:
            head = header(self.bytes_written - self._offset, self._began)
            os.pwrite(self._fd, head, self._offset)
        except OSError as error:
            raise self._trouble(error) from error

    def _put(self, facts: Iterable[Fact]) -> None:
        text = b"".join(map(encode, facts))
        if not text:
            return
        self._crc = zlib.crc32(text, self._crc)
        self._text_bytes += len(text)
        self._emit(self._deflate.compress(text) + self._deflate.flush(zlib.Z_SYNC_FLUSH))

    def _emit(self, data: bytes) -> None:
        """Write all of ``data`` at the end of the file. After an error nothing more is written: a
        reader could not decompress what follows a partial write."""
        done = 0
        try:
            while done < len(data):
                done += os.pwrite(self._fd, data[done:], self.bytes_written + done)
        except OSError as error:
            self._closed = True
            raise self._trouble(error) from error
        self.bytes_written += done

    def _trouble(self, error: OSError) -> RecordingError:
        return RecordingError(f"{self.path} is not complete: {_why(error)}")


def _why(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
