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
        self.aimed = aimed  # number of the target
        self.fd = sock.fileno()
        self.answers = ResponseParser(polled)
        self.reply: RequestState | None = None
        self.out = memoryview(b"")
        self.connecting = True
        self.writing = True  # connecting, or the request is not written completely
        self.used = False  # it has carried an answer already
        self.tries = 1  # addresses tried for this request
        self.stepped_ns = 0  # last progress of the outgoing request
        self.ours_ns = 0  # part of the time until then that this client caused, not the network
