"""Arrival times of requests at llmtop's own server, from the kernel's receive stamps."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import time

NS = 1_000_000_000
SO_TIMESTAMPNS = getattr(socket, "SO_TIMESTAMPNS", 35)


class ArrivalStamps:
    """Reads a connection in place of asyncio, which drops the kernel's receive stamps.

    The stamp is needed because a request waits in this server's event loop, and that wait is part
    of the time to answer. last_ns: when the last bytes arrived, monotonic nanoseconds.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.last_ns = 0
        self._reader, self._loop = reader, asyncio.get_running_loop()
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        fd = writer.transport.get_extra_info("socket").fileno()
        self._sock = socket.socket(fileno=os.dup(fd))
        self._loop.add_reader(self._sock.fileno(), self._read)

    def __enter__(self) -> ArrivalStamps:
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.remove_reader(self._sock.fileno())
        self._sock.close()

    def _read(self) -> None:
        try:
            data, ancillary, _, _ = self._sock.recvmsg(256 * 1024, 64)
        except BlockingIOError:
            return
        except OSError as error:
            self._loop.remove_reader(self._sock.fileno())
            self._reader.set_exception(error)
            return
        now = time.monotonic_ns()
        self.last_ns = now
        if ancillary:
            seconds, nanoseconds = struct.unpack("@ll", ancillary[0][2][:16])
            lag = time.time_ns() - (seconds * NS + nanoseconds)
            self.last_ns = now - max(0, min(lag, 10 * NS))
        if data:
            self._reader.feed_data(data)
        else:
            self._loop.remove_reader(self._sock.fileno())
            self._reader.feed_eof()
