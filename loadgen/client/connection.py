"""One socket of a load, the parser of its answers, and the bytes still to write."""

from __future__ import annotations

import socket

from llmtop.loadgen.protocol.http_parser import ResponseParser
from llmtop.loadgen.protocol.request_state import RequestState
from llmtop.loadgen.statistics.stamp_error import PollTimes


class Connection:
    """One socket, the answers on it, and what is still to be written."""

    __slots__ = (
        "aimed",
        "answers",
        "connecting",
        "fd",
        "ours_ns",
        "out",
        "receive",
        "reply",
        "sock",
        "stepped_ns",
        "tries",
        "used",
        "writing",
    )

    def __init__(self, sock: socket.socket, aimed: int, polled: PollTimes) -> None:
        self.sock, self.receive = sock, sock.recvmsg
        self.aimed = aimed  # at which of the targets so far
        self.fd = sock.fileno()
        self.answers = ResponseParser(polled)
        self.reply: RequestState | None = None
        self.out = memoryview(b"")
        self.connecting = True
        self.writing = True  # connecting, or a part of the request is still to be written
        self.used = False  # it has carried an answer already
        self.tries = 1  # addresses tried for this request
        self.stepped_ns = 0  # when we last did something for the request that goes out
        self.ours_ns = 0  # what of the time until then was ours, and not the network's
