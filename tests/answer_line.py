"""One connection with a request on it, fed by hand; and the bytes that servers send."""

from llmtop.loadgen.core.results import RequestRecord
from llmtop.loadgen.protocol.http_parser import ResponseParser
from llmtop.loadgen.protocol.request_state import RequestState
from llmtop.loadgen.statistics.shared_counters import SharedCounters

MS = 1_000_000


class Listener:
    def __init__(self) -> None:
        self.usage_seen = False
        self.firsts = 0
        self.ended: list[RequestState] = []

    def first(self, reply: RequestState) -> None:
        self.firsts += 1

    def over(self, reply: RequestState) -> None:
        self.ended.append(reply)


class Line:
    """A connection with one request on it, sent at 0; every piece comes a millisecond later."""

    def __init__(self, listener: Listener | None = None, body: bytes = b"") -> None:
        self.body = body
        self.counters, self.listener, self.answers = (
            SharedCounters(),
            listener or Listener(),
            ResponseParser(),
        )
        self.now = 1000 * MS
        self.ask()

    def ask(self) -> None:
        self.reply = RequestState(
            self.body, self.now, self.counters, self.listener, keep=True, gaps=True
        )
        self.reply.sent(self.now)
        self.answers.expect(self.reply)

    def feed(self, *pieces: bytes, close: bool = False) -> RequestRecord:
        for piece in pieces:
            self.now += MS
            self.answers.feed(piece, self.now)
            if self.answers.broken:
                break
        if close and not self.answers.broken:
            self.answers.eof(self.now)
        return self.reply.record(0, 0)


def chunked(*pieces: bytes, head: bytes = b"HTTP/1.1 200 OK\r\n") -> bytes:
    body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces if piece)
    return (
        head
        + b"content-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        + body
        + b"0\r\n\r\n"
    )


def sized(body: bytes, status: bytes = b"200 OK", kind: bytes = b"text/event-stream") -> bytes:
    return b"HTTP/1.1 %b\r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n%b" % (
        status,
        kind,
        len(body),
        body,
    )


def text(word: str) -> bytes:
    return b'data: {"choices":[{"text":"%b","finish_reason":null}]}\n\n' % word.encode()


def delta(content: str, finish: str = "null") -> bytes:
    return b'data: {"choices":[{"delta":{%b},"finish_reason":%b}]}\n\n' % (
        content.encode(),
        finish.encode(),
    )


def usage(tokens: int) -> bytes:
    return b'data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":%d}}\n\n' % tokens


USAGE = usage(3)
DONE = b"data: [DONE]\n\n"
