"""The state of one connection of a load."""

from __future__ import annotations

import socket

from llmtop.loadgen.protocol.http_parser import ResponseParser
from llmtop.loadgen.protocol.request_state import RequestState
from llmtop.loadgen.statistics.stamp_error import PollTimes


class Connection:
    """One socket, the parser of its answers, and the bytes still to write."""

    __slots__ = (
        "answers",
        "connecting",
        "fd",
        "out",
        "own_ns",
        "progress_ns",
        "receive",
        "reply",
        "sock",
        "target_number",
        "tries",
        "used",
        "writing",
    )

    def __init__(self, sock: socket.socket, target_number: int, polled: PollTimes) -> None:
        self.sock, self.receive = sock, sock.recvmsg
        self.target_number = target_number  # counts the changes of the target
        self.fd = sock.fileno()
        self.answers = ResponseParser(polled)
        self.reply: RequestState | None = None
        self.out = memoryview(b"")
        self.connecting = True
        self.writing = True  # connecting, or the request is not written completely
        self.used = False  # the connection has carried an answer
        self.tries = 1  # addresses tried for this request
        self.progress_ns = 0  # time of the last progress of the outgoing request
        self.own_ns = 0  # delay of the request until then that this client caused, not the network
