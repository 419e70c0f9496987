"""HTTP/1.1 sockets in an epoll loop, with the kernel's receive stamps as the clock."""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import time
from collections.abc import Callable
from typing import Any

from llmtop import LlmtopError
from llmtop.loadgen.client.coalescing import Pause
from llmtop.loadgen.client.connection import Connection
from llmtop.loadgen.client.transport import address, endpoint
from llmtop.loadgen.core.clock import NS, OLD_NS, StampClock
from llmtop.loadgen.protocol.request_state import RequestState
from llmtop.loadgen.statistics.histogram import bucket
from llmtop.loadgen.statistics.shared_counters import Cell, SharedCounters
from llmtop.loadgen.statistics.stamp_error import PollTimes
from llmtop.loadgen.workload.plan import Target

# Not in Python's socket module before 3.14. 35 on every Linux but SPARC and PA-RISC; the stamp then
# is a struct timespec of two longs, here 64 bits each.
SO_TIMESTAMPNS = getattr(socket, "SO_TIMESTAMPNS", 35)
_timespec = struct.Struct("@ll").unpack
_STAMP_SIZE = 64  # room for the stamp and what the kernel puts before it
_SYN_RETRIES = 3  # connecting to a silent host ends after 1 + 2 + 4 + 8 seconds
_READ_SIZE = 64 * 1024
_MAX_EVENTS = 128  # per turn, so that due sends do not wait long
_READS, _UNSTAMPED = int(Cell.READS), int(Cell.UNSTAMPED)


class SocketTransport:
    """Plain HTTP. It tries the addresses of the host name in turn until one answers.

    monotonic: nanoseconds. stamps: converts kernel stamps to the monotonic clock.
    """

    def __init__(
        self,
        target: Target,
        counters: SharedCounters,
        monotonic: Callable[[], int] = time.monotonic_ns,
        stamps: StampClock | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._target_number = 0
        self._idle: list[Connection] = []
        self.retarget(target)
        self._cells, self._lag = counters.cells, counters.lag.counts
        self._now, self._sleep = monotonic, sleep
        self._stamps = stamps or StampClock()
        self._pause = Pause(counters)
        self._polled_ns = self._entered_ns = 0
        self._polled = PollTimes()
        self.clock = "kernel"
        self._epoll = select.epoll()
        self._connections: dict[int, Connection] = {}
        self._by_reply: dict[RequestState, Connection] = {}
        self._sending: set[Connection] = set()  # requests that are not sent completely
        self._closing: list[socket.socket] = []
        self._watched: dict[int, Callable[[], None]] = {}

    def retarget(self, target: Target) -> None:
        """Connect to another server from now on; old connections end with their answers."""
        where = address(target.url)
        self._addresses = _look_up(where.host, where.port)
        self._favourite = 0
        key = f"Authorization: Bearer {target.api_key}\r\n" if target.api_key else ""
        self._head = (
            f"POST {endpoint(target)} HTTP/1.1\r\nHost: {where.authority}\r\n"
            f"Content-Type: application/json\r\nAccept: text/event-stream\r\n"
            f"Accept-Encoding: identity\r\n{key}Content-Length: "
        ).encode()
        self._target_number += 1
        for connection in list(self._idle):
            self._close(connection)

    def send(self, reply: RequestState) -> None:
        """Send a request on a free connection, or on a new one."""
        while self._idle:
            connection = self._idle.pop()
            if not connection.answers.broken:
                self._begin(connection, reply)
                return
        self._connect(reply, 1)

    def drop(self, reply: RequestState) -> None:
        """Close the connection that carries a reply."""
        connection = self._by_reply.get(reply)
        if connection is not None:
            self._close(connection)

    def watch(self, fd: int, ready: Callable[[], None]) -> None:
        """Call ``ready`` whenever ``fd`` is readable."""
        self._watched[fd] = ready
        self._epoll.register(fd, select.EPOLLIN)

    def turn(self, until_ns: int) -> None:
        """Wait once, then read, write and close what is ready."""
        now = self._now()
        if now >= self._stamps.due_ns:
            self._stamps.align()
        if now >= self._pause.due_ns:
            self._pause.update(now)
        # No pause while a request is being sent: it would be delayed.
        if self._pause.ns and not self._sending:
            rest = min(self._polled_ns + self._pause.ns, until_ns) - now
            if rest > 0:
                self._sleep(rest / NS)
                now = self._now()
                if now >= until_ns:
                    return  # due sends come first; unread data has its stamp already
        left = (until_ns - now) / NS
        # epoll has a resolution of a millisecond. The last millisecond uses select, with
        # microseconds, so that a send is not up to a millisecond late.
        if 0 < left < 0.001:
            select.select([self._epoll], [], [], left)
            left = 0.0
        wait = int(left * 1000) / 1000 if left > 0 else 0
        found = self._epoll.poll(wait, _MAX_EVENTS)
        self._polled_ns = self._polled.now_ns = self._now()
        self._polled.ns = self._entered_ns
        if len(found) < _MAX_EVENTS:  # otherwise more connections may be ready
            self._entered_ns = now
        readable = []
        for fd, events in found:
            connection = self._connections.get(fd)
            if connection is None:
                if ready := self._watched.get(fd):
                    ready()
            elif connection.writing:
                self._write(connection, events)
            else:
                readable.append(connection)
        self._read(readable)
        while self._closing:
            self._closing.pop().close()

    def close(self) -> None:
        """Close every connection."""
        for connection in list(self._connections.values()):
            self._close(connection)
        while self._closing:
            self._closing.pop().close()
        self._epoll.close()

    def _connect(self, reply: RequestState, tries: int) -> None:
        family, name = self._addresses[self._favourite]
        try:
            sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        except OSError as error:
            reply.fail(_words(error))
            return
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_SYNCNT, _SYN_RETRIES)
            sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        except OSError:
            self.clock = "user space"  # every read then counts as unstamped
        connection = Connection(sock, self._target_number, self._polled)
        connection.tries = tries
        self._connections[connection.fd] = connection
        self._epoll.register(connection.fd, select.EPOLLOUT)
        self._assign(connection, reply)
        reply.begins(self._now())
        status = sock.connect_ex(name)
        self._record_progress(connection)
        if status not in (0, errno.EINPROGRESS):
            self._connect_failed(connection, OSError(status, os.strerror(status)))

    def _connect_failed(self, connection: Connection, error: OSError) -> None:
        reply, tries = connection.reply, connection.tries
        self._close(connection)
        assert reply is not None
        self._favourite = (self._favourite + 1) % len(self._addresses)
        if tries < len(self._addresses):
            self._connect(reply, tries + 1)
        else:
            reply.fail(_words(error))

    def _assign(self, connection: Connection, reply: RequestState) -> None:
        connection.reply = reply
        connection.progress_ns = connection.own_ns = 0
        self._by_reply[reply] = connection
        connection.answers.expect(reply)
        body = reply.request
        named = f"\r\nX-Request-Id: {reply.request_id}" if reply.request_id else ""
        connection.out = memoryview(
            b"%b%d%b\r\n\r\n%b" % (self._head, len(body), named.encode(), body)
        )
        connection.writing = True
        self._sending.add(connection)

    def _begin(self, connection: Connection, reply: RequestState) -> None:
        self._assign(connection, reply)
        connection.tries = len(self._addresses)
        self._write(connection, 0)

    def _write(self, connection: Connection, events: int) -> None:
        if connection.connecting:
            status = connection.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if status:
                self._connect_failed(connection, OSError(status, os.strerror(status)))
                return
            connection.connecting = False
        elif events & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
            # A refusal may arrive while a long body is still being sent.
            self._read([connection])
            if connection.fd not in self._connections or not connection.out:
                return
        reply = connection.reply
        assert reply is not None
        # Taken before the call, because the answer may arrive before it returns.
        at = self._now()
        if not connection.progress_ns:
            reply.begins(at)
        try:
            count = connection.sock.send(connection.out)
        except BlockingIOError:
            count = 0
        except OSError as error:
            self._broke(connection, error)
            return
        connection.out = connection.out[count:]
        self._record_progress(connection)
        if connection.out:
            self._epoll.modify(connection.fd, select.EPOLLOUT | select.EPOLLIN)
            return
        connection.writing = False
        self._sending.discard(connection)
        reply.sent(at, connection.own_ns)
        self._epoll.modify(connection.fd, select.EPOLLIN)

    def _record_progress(self, connection: Connection) -> None:
        """Record progress of an outgoing request.

        The time since the last progress counts for the network, except the time in which this loop
        did not poll.
        """
        now, reply = self._now(), connection.reply
        if connection.progress_ns:
            since = max(connection.progress_ns, self._polled.ns)
        else:
            since = reply.intended_ns if reply is not None else now
        connection.own_ns += now - since
        connection.progress_ns = now

    def _read(self, connections: list[Connection]) -> None:
        """Read all, then process all: so the code of each part stays in the CPU's L1 cache."""
        now = self._now
        reads = []
        for connection in connections:
            try:
                data, ancillary, _, _ = connection.receive(_READ_SIZE, _STAMP_SIZE)
            except BlockingIOError:
                continue
            except OSError as error:
                self._broke(connection, error)
                continue
            if data:
                reads.append((connection, data, ancillary, now()))
            else:
                self._broke(connection, None)
        lag, offset_ns = self._lag, self._stamps.offset_ns
        for connection, data, ancillary, at in reads:
            if ancillary:
                seconds, nanoseconds = _timespec(ancillary[0][2])
                stamp = seconds * NS + nanoseconds
                late = at - stamp - offset_ns
                if not 0 <= late <= OLD_NS:
                    late = at - self._stamps.at(stamp, at)
                    offset_ns = self._stamps.offset_ns
                lag[bucket(late)] += 1
                at -= late
            else:
                self._cells[_UNSTAMPED] += 1
            if connection.answers.feed(data, at):
                self._settle(connection)
        self._cells[_READS] += len(reads)

    def _settle(self, connection: Connection) -> None:
        """An answer is complete, or the connection can no longer be used."""
        old = connection.target_number != self._target_number  # the target was changed
        if old or connection.answers.broken or connection.writing:  # writing: answered too early
            self._close(connection)
            return
        if connection.reply is not None:
            del self._by_reply[connection.reply]
            connection.reply = None
        connection.used = True
        self._idle.append(connection)

    def _broke(self, connection: Connection, error: OSError | None) -> None:
        reply = connection.reply
        stale = connection.used and reply is not None and not reply.first_byte_ns
        self._close(connection)
        if reply is None or reply.over:
            return
        if stale:
            # The server closed an idle connection just when the request was sent (uvicorn does
            # after 5 s). The server did not process the request, so it is sent again.
            self._connect(reply, 1)
        elif error is not None:
            connection.answers.fail(_words(error))
        else:
            connection.answers.eof(self._now())

    def _close(self, connection: Connection) -> None:
        if self._connections.pop(connection.fd, None) is None:
            return
        self._sending.discard(connection)
        if connection.reply is not None:
            self._by_reply.pop(connection.reply, None)
        elif connection in self._idle:
            self._idle.remove(connection)
        self._epoll.unregister(connection.fd)
        # It is closed after the turn. The kernel must not reuse its descriptor while events of this
        # connection are being processed.
        self._closing.append(connection.sock)


def _look_up(host: str, port: int) -> list[tuple[int, Any]]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise LlmtopError(f"cannot look up {host}: {error.strerror}", "check the URL") from None
    except UnicodeError:  # not a valid name, such as one with an empty label
        raise LlmtopError(f"{host} is not a host name", "check the URL") from None
    return [(family, name) for family, _, _, _, name in found]


def _words(error: OSError) -> str:
    match error.errno:
        case errno.ECONNREFUSED:
            return "connection refused"
        case errno.ECONNRESET | errno.EPIPE:
            return "connection reset"
        case errno.ETIMEDOUT:
            return "connect time-out"
        case errno.EMFILE | errno.ENFILE:
            return "the limit of open files is reached"
        case errno.EADDRNOTAVAIL:
            return "no local port is free"
        case _:
            return (error.strerror or str(error)).lower()
