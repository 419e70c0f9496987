"""Answers on a connection: HTTP, the stream in it and what it means, cut at every place."""

from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llmtop.loadgen.core.results import Fate
from llmtop.loadgen.protocol.answer_body import MAX_ERROR_BODY
from llmtop.loadgen.protocol.http_parser import MAX_HEAD
from llmtop.loadgen.statistics.histogram import BUCKETS
from llmtop.loadgen.statistics.shared_counters import CELLS, Cell, Row
from llmtop.loadgen.workload.plan import Prompts, Target
from llmtop.loadgen.workload.request_body import RequestBody
from llmtop.values import replace
from tests import tiers
from tests.answer_line import DONE, MS, USAGE, Line, Listener, chunked, delta, sized, text, usage

GOOD = (text("a"), text("b"), text("c"), USAGE, DONE)

STREAMS = {
    "chunked": (chunked(*GOOD), False),
    "one chunk": (chunked(b"".join(GOOD)), False),
    "content-length": (sized(b"".join(GOOD)), False),
    "close-delimited": (
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + b"".join(GOOD),
        True,
    ),
    "interim": (b"HTTP/1.1 100 Continue\r\n\r\n" + chunked(*GOOD), False),
    "CRLF": (chunked(b"".join(GOOD).replace(b"\n", b"\r\n")), False),
    "comments": (chunked(b": ping\n\n", *GOOD), False),
}


@pytest.mark.parametrize("name", STREAMS)
def test_a_good_answer_cut_at_every_place(name: str) -> None:
    stream, close = STREAMS[name]
    for place in range(1, len(stream)):
        record = Line().feed(stream[:place], stream[place:], close=close)
        assert (record.fate, record.error) == (Fate.OK, ""), place
        assert (record.tokens, record.prompt_tokens, record.counted) == (3, 9, False)
        assert record.first_byte == pytest.approx(1.001)


@given(st.lists(st.integers(0, 1000), max_size=15), st.sampled_from(sorted(STREAMS)))
def test_a_good_answer_in_any_pieces(cuts: list[int], name: str) -> None:
    stream, close = STREAMS[name]
    places = sorted({min(cut, len(stream)) for cut in cuts} | {0, len(stream)})
    pieces = [stream[a:b] for a, b in pairwise(places)]
    record = Line().feed(*pieces, close=close)
    assert record.fate is Fate.OK and record.tokens == 3


@pytest.mark.parametrize("name", ["chunked", "content-length", "CRLF"])
def test_an_answer_that_breaks_off_anywhere_is_a_failure(name: str) -> None:
    stream, _ = STREAMS[name]
    for place in range(len(stream)):
        line = Line()
        record = line.feed(stream[:place], close=True) if place else line.feed(close=True)
        complete = b"[DONE]" in stream[:place] and stream[:place].count(b"\n\n") > 4
        if name == "CRLF":
            complete = b"[DONE]\r\n\r" in stream[:place]  # a lone CR ends a line too
        assert (record.fate is Fate.OK) == complete, (place, record)
        assert len(line.listener.ended) == 1
        assert complete or record.error.startswith(("closed", "the stream ended"))


@given(st.lists(st.binary(max_size=200), max_size=10))
def test_any_bytes_end_in_one_verdict_and_little_kept(pieces: list[bytes]) -> None:
    line = Line()
    line.feed(*pieces, close=True)
    assert line.reply.over
    assert len(line.listener.ended) == 1


@given(st.lists(st.binary(max_size=60), max_size=12), st.booleans())
def test_any_body_ends_in_one_verdict(pieces: list[bytes], event: bool) -> None:
    lines = [b"data: " + p + b"\n\n" for p in pieces] if event else pieces
    line = Line()
    line.feed(chunked(*lines), close=True)
    assert len(line.listener.ended) == 1


def test_moments_and_gaps() -> None:
    line = Line()
    whole = chunked(*GOOD)
    head, first, second = whole.index(b"\r\n\r\n") + 4, whole.index(b'"b"'), whole.index(b'"c"')
    record = line.feed(whole[:head], whole[head:first], whole[first:second], whole[second:])
    # The event that a piece cuts belongs to the piece that completes it.
    assert (record.first_byte, record.first, record.last) == (1.001, 1.002, 1.004)
    assert record.ttft == pytest.approx(0.002)
    assert record.e2e == pytest.approx(0.004)
    assert record.tpot == pytest.approx(0.001)
    assert sum(line.counters.itl.counts) == 2
    assert line.listener.firsts == 1


def test_the_next_answer_comes_on_the_same_connection() -> None:
    line = Line()
    assert line.feed(chunked(*GOOD)).fate is Fate.OK
    assert line.answers.idle and not line.answers.broken
    line.ask()
    assert line.feed(sized(b"".join(GOOD))).fate is Fate.OK
    assert line.counters.cells[Cell.OK] == 2


def test_connection_close_is_heeded() -> None:
    line = Line()
    head = b"HTTP/1.1 200 OK\r\nconnection: close\r\n"
    assert line.feed(chunked(*GOOD, head=head)).fate is Fate.OK
    assert line.answers.broken


def test_bytes_after_the_answer_spoil_the_connection_only() -> None:
    line = Line()
    assert line.feed(chunked(*GOOD) + b"HTTP/1.1 200 OK\r\n").fate is Fate.OK
    line.answers.feed(b"x", line.now)
    assert line.answers.broken


@pytest.mark.parametrize(
    ("events", "error"),
    [
        ((text("a"), USAGE), "the stream ended before its [DONE]"),
        (
            (text("a"), DONE),
            "[DONE] without the requested usage, and without finish_reason",
        ),
        ((DONE,), "[DONE] without the requested usage"),
        (
            (b'data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":0}}\n\n', DONE),
            "no token was received",
        ),
        (
            (text("a"), b'data: {"error":{"message":"engine died","code":500}}\n\n', DONE),
            "error in the stream: engine died",
        ),
        ((b'data: {"error":"boom"}\n\n', DONE), "error in the stream: boom"),
        ((b'data: {"object":"error","message":"boom"}\n\n',), "error in the stream: boom"),
        ((text("a"), delta("", '"abort"'), USAGE, DONE), "the server aborted the answer"),
        ((b"data: {]\n\n",), "a chunk that is not a completion chunk"),
        ((b'data: {"choices":7}\n\n',), "a chunk that is not a completion chunk"),
        ((usage(10**30),), "the stream ended before its [DONE]"),
        ((text("\\ud800"), DONE), ""),
        ((b"data: " + b"[" * 5000 + b"\n\n",), "a chunk that is not a completion chunk"),
        ((b"data: " + b"x" * 70_000,), "a line in the stream is too long"),
    ],
)
def test_a_stream_that_says_200_may_still_have_failed(
    events: tuple[bytes, ...], error: str
) -> None:
    record = Line().feed(chunked(*events))
    assert record.fate is Fate.FAILED
    assert record.error.startswith(error)


def test_without_usage_the_chunks_are_counted_and_it_is_said() -> None:
    record = Line().feed(chunked(text("a"), delta('"content":"b"', '"length"'), DONE))
    assert (record.fate, record.tokens, record.counted) == (Fate.OK, 2, True)


@pytest.mark.parametrize(("told", "counted"), [(10, False), (11, True), (1_000_000_000, True)])
def test_a_count_of_tokens_that_cannot_be_is_not_believed(told: int, counted: bool) -> None:
    body = RequestBody(Prompts(), Target("http://x", "m")).wrap(b"[128,129]", 10)
    usage = b'data: {"choices":[],"usage":{"prompt_tokens":2,"completion_tokens":%d}}\n\n' % told
    listener = Listener()
    for _ in range(2):  # what it told before does not make the second one a failure either
        line = Line(listener, body)
        record = line.feed(chunked(text("a"), delta('"content":"b"', '"length"'), usage, DONE))
        assert (record.fate, record.counted) == (Fate.OK, counted)
        assert record.tokens == line.counters.cells[Cell.TOKENS] == (2 if counted else told)


def test_a_server_that_has_sent_usage_once_must_go_on_doing_so() -> None:
    listener = Listener()
    assert Line(listener).feed(chunked(*GOOD)).fate is Fate.OK
    record = Line(listener).feed(chunked(text("a"), delta('"content":"b"', '"length"'), DONE))
    assert record.fate is Fate.FAILED


def test_a_role_is_not_a_token() -> None:
    line = Line()
    role, word = delta('"role":"assistant","content":""'), delta('"content":"hi"')
    whole = chunked(role, word, USAGE, DONE)
    place = whole.index(b"hi")
    record = line.feed(whole[:place], whole[place:])
    assert record.first == 1.002


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
def test_thoughts_count_as_tokens_but_not_as_content(name: str) -> None:
    whole = chunked(delta(f'"{name}":"hm"'), delta('"content":"hi"'), USAGE, DONE)
    place = whole.index(b"hi")
    record = Line().feed(whole[:place], whole[place:])
    assert (record.first_reasoning, record.first) == (1.001, 1.002)
    assert record.ttft == pytest.approx(0.001)


def test_thoughts_after_a_first_piece_of_content_have_a_moment_too() -> None:
    whole = chunked(delta('"content":"\\n"'), delta('"reasoning":"hm"'), USAGE, DONE)
    place = whole.index(b"hm")
    record = Line().feed(whole[:place], whole[place:])
    assert (record.first, record.first_reasoning) == (1.001, 1.002)
    assert record.ttft == pytest.approx(0.001)


def test_tokens_without_any_text_still_have_a_first_moment() -> None:
    whole = chunked(text(""), text(""), USAGE, DONE)
    record = Line().feed(whole[:-40], whole[-40:])
    assert record.fate is Fate.OK
    assert (record.first, record.last) == (1.001, 1.001)


@pytest.mark.parametrize(
    ("stream", "error"),
    [
        (
            sized(b'{"error":{"message":"slow\\u001b[2J down"}}', b"418 No"),
            "HTTP 418: slow down",
        ),
        (sized(b'{"detail":"nope"}', b"422 No"), "HTTP 422: nope"),
        (sized(b'{"message":"old vllm","object":"error"}', b"400 No"), "HTTP 400: old vllm"),
        (
            sized(b"<html>\xff\xfe oh\n no", b"502 No", b"text/html"),
            "HTTP 502: <html>\ufffd\ufffd oh",
        ),
        (sized(b"", b"503 No"), "HTTP 503"),
        (sized(b"[" * 3000, b"500 No"), "HTTP 500: [[["),
        (sized(b'{"text":"x"}', kind=b"application/json"), "answered in one piece instead"),
        (sized(b"<html>", kind=b"text/html"), "the answer is not an event stream"),
        (sized(b"<html>\n\n<p>x: y\n</html>\n"), "the answer is not an event stream"),
        (sized(b": ping\n\n"), "the stream ended before its [DONE]"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 101 Go\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nzzz", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "not HTTP"),
    ],
)
def test_refusals_are_told_in_a_few_clean_words(stream: bytes, error: str) -> None:
    record = Line().feed(stream, close=True)
    assert record.fate is Fate.FAILED
    assert record.error.startswith(error)
    assert record.error.isprintable() and len(record.error) <= 120


FULL = b'{"error":{"message":"The queue is full: 16 wait already."}}'


@pytest.mark.parametrize(
    "stream",
    [
        sized(FULL, b"503 No"),
        sized(b"{}", b"503 No\r\nretry-after: 1"),
        sized(b"", b"429 No"),
        sized(b'data: {"error": {"message": "The request queue is full.", "code": 503}}\n\n'),
    ],
)
def test_a_full_queue_refuses_and_is_no_failure(stream: bytes) -> None:
    line = Line()
    record = line.feed(stream, close=True)
    assert record.fate is Fate.REFUSED
    assert record.error.startswith(("HTTP 429", "HTTP 503", "error in the stream"))
    cells = line.counters.cells
    assert (cells[Cell.REFUSED], cells[Cell.FAILED]) == (1, 0)


def test_headers_without_end_are_given_up() -> None:
    line = Line()
    line.feed(b"HTTP/1.1 200 OK\r\n", *[b"x-a: " + b"z" * 1000 + b"\r\n"] * 200)
    assert line.answers.broken
    assert line.reply.error == "the headers are too long"
    assert line.now < 1000 * MS + (MAX_HEAD // 1000 + 5) * MS


@pytest.mark.parametrize(
    ("name", "endless"),
    [
        ("trailers", b"0\r\nx-a: " + b"z" * 1000),
        ("more trailers", b"0\r\n" + b"x-a: z\r\n" * 100),
        ("a chunk's extension", b"5;" + b"x" * 1000),
    ],
)
def test_framing_without_end_is_given_up(name: str, endless: bytes) -> None:
    line = Line()
    whole = chunked(text("a"), text("b"))
    more = endless[endless.index(b"x") :]
    record = line.feed(whole[: -len(b"0\r\n\r\n")], endless, *[more] * 1000)
    assert line.answers.broken, name
    assert (record.fate, record.error) == (Fate.FAILED, "the chunk framing is too long")
    assert line.now < 1000 * MS + (MAX_HEAD // len(more) + 6) * MS


def test_interim_answers_without_end_are_given_up() -> None:
    line = Line()
    record = line.feed(*[b"HTTP/1.1 100 Continue\r\n\r\n" * 40] * 1000)
    assert record.error == "the headers are too long"
    assert line.now < 1000 * MS + 100 * MS


def test_a_long_stream_is_no_framing() -> None:
    line = Line()
    record = line.feed(*[piece for piece in _pieces(chunked(*[text("a")] * 4000, USAGE, DONE))])
    assert (record.fate, record.tokens) == (Fate.OK, 3)


def _pieces(stream: bytes) -> list[bytes]:
    return [stream[at : at + 5000] for at in range(0, len(stream), 5000)]


FRAMES = ["chunked", "content-length", "close-delimited"]


@given(
    st.lists(st.sampled_from(["a", "role", "comment", "two lines", "keep"]), max_size=6),
    st.sampled_from(FRAMES),
    st.sampled_from([b"\n", b"\r\n", b"\r"]),
    st.lists(st.integers(0, 1500), max_size=12),
    st.one_of(st.none(), st.integers(0, 1500)),
)
def test_any_stream_in_any_frame_cut_anywhere_and_perhaps_broken_off(
    parts: list[str], frame: str, end: bytes, cuts: list[int], broken: int | None
) -> None:
    words = {
        "a": text("a"),
        "role": delta('"role":"assistant","content":""'),
        "comment": b": a remark\n\n",
        "two lines": b'data: {"choices":[{"text":\ndata: "b","finish_reason":null}]}\n\n',
        "keep": b"\n\nevent: token\nid: 3\n\n",
    }
    body = b"".join((*(words[part] for part in parts), USAGE, DONE)).replace(b"\n", end)
    close = frame == "close-delimited"
    if frame == "chunked":
        stream = chunked(*_pieces(body))
    elif frame == "content-length":
        stream = sized(body)
    else:
        stream = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + body
    whole = broken is None or broken >= len(stream)
    stream = stream[:broken]
    places = sorted({min(cut, len(stream)) for cut in cuts} | {0, len(stream)})
    line = Line()
    record = line.feed(*[stream[a:b] for a, b in pairwise(places)], close=close or not whole)
    assert len(line.listener.ended) == 1
    if whole:
        assert (record.fate, record.tokens) == (Fate.OK, 3)
    elif record.fate is Fate.OK:  # only what came after [DONE] may be missing
        assert b"[DONE]" in stream
    else:
        assert record.error


@pytest.mark.parametrize("status", [b"429 No", b"500 No", b"503 No"])
@given(st.binary(max_size=300), st.lists(st.integers(0, 400), max_size=8))
def test_any_error_body_is_one_failure_in_clean_words(
    status: bytes, body: bytes, cuts: list[int]
) -> None:
    stream = sized(body, status, b"application/json")
    places = sorted({min(cut, len(stream)) for cut in cuts} | {0, len(stream)})
    line = Line()
    record = line.feed(*[stream[a:b] for a, b in pairwise(places)])
    assert record.error.startswith(f"HTTP {status[:3].decode()}")
    assert record.error.isprintable() and len(record.error) <= 120
    assert len(line.listener.ended) == 1


def test_an_error_body_without_end_is_given_up() -> None:
    line = Line()
    head = b"HTTP/1.1 500 No\r\ncontent-length: 1000000000\r\n\r\n"
    record = line.feed(head, *[b"x" * 1000] * 1000)
    assert line.answers.broken
    assert record.error.startswith("HTTP 500: xxx")
    assert line.now < 1000 * MS + (MAX_ERROR_BODY // 1000 + 5) * MS


def test_a_reply_that_was_cut_ignores_the_rest() -> None:
    line = Line()
    line.feed(chunked(*GOOD)[:150])
    line.reply.cut()
    record = line.feed(chunked(*GOOD)[150:])
    assert (record.fate, record.error) == (Fate.CUT, "cut")
    assert line.counters.cells[Cell.CUT] == 1 and line.counters.cells[Cell.OK] == 0


WORDS = {
    "a": text("a"),
    "words": text(" so it is"),
    "a quote": text('\\"so\\", "text":"x'),
    "an escape": text("\\u00e9\\n"),
    "a half escape": text("\\"),
    "an end of the string": text('","text":"b'),
    "another end of it": text('"}],"usage":{"prompt_tokens":3,"completion_tokens":9},"x":[{"a":"'),
    "not ASCII": text("\u00e9"),
    "not UTF-8": text("a").replace(b'"a"', b'"\xff"'),
    "a control character": text("\x01"),
    "no text": text(""),
    "the last": text("a").replace(b"null", b'"stop"'),
    "with a clock": text("a").replace(b"data: {", b'data: {"created":7,'),
    "with another clock": text("a").replace(b"data: {", b'data: {"created":8,'),
    "with more around it": text("a").replace(b"data: {", b'data: {"text":"b",'),
    "words of a chat": delta('"content":"so it is"'),
    "content and a thought": delta('"content":"hi","reasoning":"hm"'),
    "the last of a chat": delta('"content":"hi"', '"stop"'),
    "long": text("x" * 300),
    "longer than is looked at": text("x" * 3000),
    "role": delta('"role":"assistant","content":""'),
    "content": delta('"content":"hi"'),
    "thought": delta('"reasoning":"hm"'),
    "nothing": delta(""),
    "usage": USAGE,
    "usage with a token": USAGE.replace(b"[]", b'[{"text":"a"}]'),
    "done": DONE,
    "comment": b": a remark\n\n",
    "error": b'data: {"error":{"message":"boom"}}\n\n',
    "error object": b'data: {"object":"error","message":"boom"}\n\n',
    "no JSON": b"data: {]}\n\n",
    "no chunk": b'data: {"choices":{}}\n\n',
    "a text in no JSON": b'data: {"choices":[{"text":"a"]}\n\n',
    "a text in no chunk": b'data: {"choices":[{"text":"a"}],"usage":"x"}\n\n',
    "two lines": b'data: {"choices":[{"text":\ndata: "b","finish_reason":null}]}\n\n',
    "two events": text("a") + text("b"),
    "a line of something else": b'data: {"choices":[{"text":"a"}\n]}\n\n',
    "CRLF": text("a").replace(b"\n", b"\r\n"),
    "CR": text("a").replace(b"\n", b"\r"),
    "a stray CR": b'data: {"choices":[{"text":"a"}]\r}\n\n',
    "half": text("a")[:20],
    "the other half": text("a")[20:],
    "no end": text("a")[:-1],
    "no space": text("a").replace(b"data: ", b"data:"),
}
FRAMINGS: dict[str, Callable[[bytes], bytes]] = {
    "plain": lambda data: b"%x\r\n%b\r\n" % (len(data), data),
    "capitals": lambda data: b"%X\r\n%b\r\n" % (len(data), data),
    "leading zero": lambda data: b"0%x\r\n%b\r\n" % (len(data), data),
    "extension": lambda data: b"%x;a=b\r\n%b\r\n" % (len(data), data),
    "too short": lambda data: b"%x\r\n%b\r\n" % (len(data) - 1, data),
    "too long": lambda data: b"%x\r\n%b\r\n" % (len(data) + 1, data),
    "no end": lambda data: b"%x\r\n%b" % (len(data), data),
    "the next one begun": lambda data: b"%x\r\n%b\r\n1" % (len(data), data),
    "the next one's size": lambda data: b"%x\r\n%b\r\n10fa\r\n" % (len(data), data),
    "unframed": lambda data: data,
    "trailers": lambda data: b"0\r\n%b" % data,
    "the end": lambda data: b"0\r\n\r\n",
}
KEPT = st.sampled_from([0, 0, 0, 1, 7, 100, 300])  # bytes that come only with the next read
READ = st.tuples(st.sampled_from(sorted(WORDS)), st.sampled_from(["plain"] * 12 + sorted(FRAMINGS)))


@pytest.mark.parametrize(
    "first", ["a", "content", "thought", "with a clock", "with more around it"]
)
@pytest.mark.parametrize("word", sorted(WORDS))
def test_an_event_after_ones_like_it_means_what_it_means_in_halves(first: str, word: str) -> None:
    plain = FRAMINGS["plain"]
    pieces = [chunked(WORDS[first])[: -len(b"0\r\n\r\n")], *[plain(WORDS[first])] * 3]
    pieces += [plain(WORDS[word]), *[plain(WORDS[first])] * 2, plain(WORDS[word])]
    seen = [_in_parts(pieces, parts, close=True) for parts in (1, 2)]
    assert seen[0] == seen[1]


@given(
    st.lists(READ, max_size=12),
    st.lists(st.integers(0, 4000), max_size=3),
    st.sampled_from([b"transfer-encoding: chunked\r\n", b"content-length: 900\r\n", b""]),
    st.booleans(),
)
def test_a_read_that_is_one_event_means_what_it_means_in_halves(
    reads: list[tuple[str, str]], cuts: list[int], frame: bytes, close: bool
) -> None:
    pieces = [b"HTTP/1.1 200 OK\r\n" + frame + b"\r\n"]
    for word, framing in reads:
        piece = FRAMINGS[framing](WORDS[word])
        places = sorted({min(cut, len(piece)) for cut in cuts} | {0, len(piece)})
        pieces += [piece[a:b] for a, b in pairwise(places)]
    seen = [_in_parts(pieces, parts, close) for parts in (1, 2)]
    assert seen[0] == seen[1]


@example([([("a", "plain")], 0), ([("a", "plain")] * 4, 0), ([("a", "plain")] * 3, 7)], True)
@given(
    st.lists(st.tuples(st.lists(READ, min_size=1, max_size=5), KEPT), max_size=8),
    st.booleans(),
)
def test_a_read_of_several_events_means_what_it_means_byte_by_byte(
    reads: list[tuple[list[tuple[str, str]], int]], close: bool
) -> None:
    pieces = [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", left := b""]
    for events, kept in reads:
        data = left + b"".join(FRAMINGS[framing](WORDS[word]) for word, framing in events)
        left = data[max(0, len(data) - kept) :]
        pieces.append(data[: len(data) - len(left)])
    whole, single = (_in_parts([*pieces, left], parts, close) for parts in (1, None))
    # What stands in a read after an answer that failed may still end it for its connection.
    assert whole[1:] == single[1:]


@pytest.mark.parametrize("word", sorted(WORDS))
@pytest.mark.parametrize("framing", tiers.first(2, ["plain", *sorted(FRAMINGS.keys() - {"plain"})]))
def test_every_kind_of_event_in_every_frame_means_what_it_means_in_halves(
    word: str, framing: str
) -> None:
    pieces = [chunked(text("a"), text("b"))[: -len(b"0\r\n\r\n")]]
    pieces += [FRAMINGS[framing](WORDS[word]), *[FRAMINGS["plain"](text("c"))] * 20]
    seen = [_in_parts(pieces, parts, close=True) for parts in (1, 2)]
    assert seen[0] == seen[1]


def _in_parts(pieces: list[bytes], parts: int | None, close: bool) -> tuple[object, ...]:
    """What came of them; each in so many reads at the same moment, None: a read for each byte."""
    line, states, steps = Line(), [], []
    for piece in pieces:
        line.now += MS
        size = max(1, len(piece) // (parts or len(piece) or 1))
        for begin in range(0, len(piece), size):
            if not line.answers.broken:
                line.answers.feed(piece[begin : begin + size], line.now)
        reply = line.reply
        states.append((line.answers.broken, line.answers.idle))
        steps.append((reply.over, reply.chunks, reply.last_ns))
    if close and not line.answers.broken:
        line.answers.eof(line.now)
    # How sure a moment is does depend on what was read at once; what it means does not.
    record = replace(line.reply.record(0, 0), first_error=0.0, last_error=0.0)
    meant = line.counters.copy()[: CELLS + Row.TTFT_LOW * BUCKETS]
    return states, steps, (record, line.reply.answer), meant, line.listener.firsts
