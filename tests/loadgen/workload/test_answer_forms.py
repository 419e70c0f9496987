"""What servers, parsers and proxies make of a stream: tool calls, heartbeats, odd numbers, gzip."""

import gzip
import zlib

import pytest

from llmtop.loadgen.core.results import Fate, Remark, RequestRecord
from llmtop.loadgen.protocol.content_coding import Inflater, Unreadable
from llmtop.loadgen.statistics.shared_counters import Cell
from llmtop.loadgen.workload.plan import Prompts, Target
from llmtop.loadgen.workload.request_body import RequestBody
from tests.answer_line import DONE, USAGE, Line, chunked, delta, sized, text, usage

ROLE = delta('"role":"assistant","content":""')
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def body(output: int = 10, prompt: bytes = b"[128,129]", **fields: object) -> bytes:
    return RequestBody(Prompts(**fields), Target("http://x", "m")).wrap(prompt, output)  # type: ignore[arg-type]


def a_chunk_each(*events: bytes, request: bytes = b"") -> tuple[RequestRecord, Line]:
    """Each event comes a millisecond after the one before, the head with the first."""
    frames = [b"%x\r\n%b\r\n" % (len(event), event) for event in events]
    line = Line(body=request)
    return line.feed(HEAD + frames[0], *frames[1:], b"0\r\n\r\n"), line


@pytest.mark.parametrize(
    ("first", "more"),
    [
        (
            '"tool_calls":[{"index":0,"id":"x","function":{"name":"get","arguments":""}}]',
            '"tool_calls":[{"index":0,"function":{"arguments":"{"}}]',
        ),
        (
            '"content":null,"tool_calls":[{"index":0,"function":{"name":"get"}}]',
            '"content":null,"tool_calls":[{"index":1,"function":{"arguments":"{"}}]',
        ),
        (
            '"function_call":{"name":"get","arguments":""}',
            '"function_call":{"arguments":"{"}',
        ),
        ('"refusal":"I"', '"content":null,"refusal":" will not"'),
        ('"reasoning_content":"hm"', '"content":null,"reasoning_content":"so"'),
        ('"reasoning":"hm"', '"reasoning":"so"'),
        ('"content":[{"type":"text","text":"a"}]', '"content":[{"type":"text","text":"b"}]'),
        ('"content":["a"]', '"content":["b","c"]'),
        (
            '"content":[{"type":"thinking","thinking":[{"type":"text","text":"hm"}]}]',
            '"content":[{"type":"text","text":"b"}]',
        ),
        (
            '"tool_calls":[{"index":0,"custom":{"name":"sh","input":""}}]',
            '"tool_calls":[{"index":0,"custom":{"input":"ls"}}]',
        ),
    ],
)
def test_whatever_the_model_made_is_output(first: str, more: str) -> None:
    record, line = a_chunk_each(ROLE, delta(first), *[delta(more)] * 4, usage(5), DONE)
    assert (record.fate, record.error, record.tokens, record.chunks) == (Fate.OK, "", 5, 5)
    assert record.ttft == pytest.approx(0.002)  # not at the role, not at the end
    assert record.tpot == pytest.approx(0.001)
    assert sum(line.counters.itl.counts) == 4


@pytest.mark.parametrize(
    "nothing",
    [
        '"tool_calls":[]',
        '"tool_calls":null,"function_call":null,"refusal":null',
        '"tool_calls":[{"index":0,"function":{"arguments":""}}]',
        '"tool_calls":[null,7,{"function":"x"}]',
        '"tool_calls":"x","function_call":[1]',
        '"content":[]',
        '"content":[{"type":"text","text":""}]',
        '"content":{"a":[[[[[[[[[["deep"]]]]]]]]]]}',
        '"refusal":""',
    ],
)
def test_what_holds_no_output_is_no_token(nothing: str) -> None:
    record, _ = a_chunk_each(ROLE, delta(nothing), delta('"content":"a"'), usage(1), DONE)
    assert (record.fate, record.chunks) == (Fate.OK, 1)
    assert record.ttft == pytest.approx(0.003)


def test_a_list_of_parts_is_read_and_said() -> None:
    record, line = a_chunk_each(*[delta('"content":[{"type":"text","text":"a"}]')] * 3, USAGE, DONE)
    assert record.remarks == (Remark.CONTENT_LIST,)
    assert line.reply.answer == "aaa"


def test_every_choice_of_a_chunk_is_output() -> None:
    two = b'data: {"choices":[{"index":0,"text":""},{"index":1,"text":"b"}]}\n\n'
    given_up = b'data: {"choices":[{"text":"a"},{"index":1,"text":"","finish_reason":"abort"}]}\n\n'
    record, _ = a_chunk_each(two, two, usage(2), DONE)
    assert (record.fate, record.chunks) == (Fate.OK, 2)
    record, _ = a_chunk_each(two, given_up, usage(2), DONE)
    assert record.error == "the server aborted the answer (finish_reason abort)"


@pytest.mark.parametrize("at_once", [True, False])
def test_the_time_of_a_token_is_unknown_where_all_came_at_one_moment(at_once: bool) -> None:
    if at_once:  # a proxy kept the answer until it was complete
        line = Line()
        record = line.feed(chunked(text("a"), text("b"), text("c"), USAGE, DONE))
    else:  # a tool parser did: one piece with all of it
        record, line = a_chunk_each(ROLE, ROLE, delta('"content":"all of it"'), usage(30), DONE)
    assert record.fate is Fate.OK and record.tokens > 1
    assert record.tpot is None
    assert sum(line.counters.tpot.counts) == 0 and sum(line.counters.e2e.counts) == 1


@pytest.mark.parametrize(
    "end",
    [
        b"data: [DONE]\n",
        b"data: [DONE]",
        b"data:[DONE]",
        b"data: [DONE]\r",
        b"data: [DONE] \n\n",
        b"event: message\ndata: [DONE]\n\n",
    ],
)
@pytest.mark.parametrize("frame", ["chunked", "sized", "until closed"])
def test_a_last_event_counts_without_its_blank_line(end: bytes, frame: str) -> None:
    events = (text("a"), text("b"), text("c"), USAGE)
    if frame == "chunked":
        record = Line().feed(chunked(*events, end))
    elif frame == "sized":
        record = Line().feed(sized(b"".join((*events, end))))
    else:
        head = b"HTTP/1.0 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
        record = Line().feed(head, *events, end, close=True)
    assert (record.fate, record.error, record.tokens) == (Fate.OK, "", 3)


def test_an_error_as_a_last_event_without_a_blank_line_is_told() -> None:
    record = Line().feed(chunked(text("a"), b'data: {"error":{"message":"boom"}}'))
    assert record.error == "error in the stream: boom"


def test_half_an_event_at_the_end_of_the_body_is_no_chunk_and_no_excuse() -> None:
    record = Line().feed(chunked(text("a"), b'data: {"choices":[{"te'))
    assert record.error == "the stream ended before its [DONE]"


@pytest.mark.parametrize("error", ['""', "{}", "null", "false", "[]", '{"message":"","code":null}'])
def test_an_empty_error_is_none(error: str) -> None:
    chunk = b'data: {"choices":[{"text":"a"}],"error":%b}\n\n' % error.encode()
    record = Line().feed(chunked(chunk, chunk, chunk, USAGE, DONE))
    assert (record.fate, record.tokens, record.chunks) == (Fate.OK, 3, 3)


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (b'event: error\ndata: {"type":"error","message":"too many"}\n\n', ": too many"),
        (b'event: error\ndata: {"error":{"message":"too many"}}\n\n', ": too many"),
        (b"event: error\ndata: too many\n\n", ": too many"),
        (b"data: too many\nevent: ERROR\n\n", ": too many"),
        (b"event: error\n\n", ""),
        (b'event: error\ndata: {"choices":[{"text":"a"}],"message":"x"}\n\n', ": x"),
        (b'data: {"type":"error","message":"too many"}\n\n', ": too many"),
        (b'data: {"detail":"too many"}\n\n', ": too many"),
        (b'data: {"message":"too many","code":429}\n\n', ": too many"),
        (b'data: {"error":{"message":"","type":"overloaded"}}\n\n', ": "),
        (b'data: {"error":1}\n\n', ": 1"),
    ],
)
def test_an_error_is_told_in_the_servers_words(event: bytes, words: str) -> None:
    for place in (1, 9, len(event) - 1, len(event)):
        stream = chunked(text("a"), text("b"), event)[: -len(b"0\r\n\r\n")]
        cut = stream.index(event) + place
        record = Line().feed(stream[:cut], stream[cut:])
        assert record.fate is Fate.FAILED
        assert record.error.startswith(f"error in the stream{words}")


@pytest.mark.parametrize(
    "beat",
    [
        b"data:\n\n",
        b"data: \n\n",
        b"data:   \n\n",
        b"event: ping\ndata:\n\n",
        b"event: ping\ndata: now\n\n",
        b'event: ping\ndata: {"type":"ping"}\n\n',
        b'data: {"type":"ping"}\n\n',
        b"event: heartbeat\n\n",
        b": keep-alive\n\n",
        b":\n\n",
        b"id: 7\nretry: 10\n\n",
        b"\n",
        b"data: {}\n\n",
    ],
)
def test_a_heartbeat_is_nothing(beat: bytes) -> None:
    record, line = a_chunk_each(
        beat, text("a"), beat, text("b"), beat, text("c"), USAGE, beat, DONE
    )
    assert (record.fate, record.error, record.chunks) == (Fate.OK, "", 3)
    assert record.ttft == pytest.approx(0.002) and line.listener.firsts == 1


def test_an_event_with_a_name_may_be_a_chunk() -> None:
    named = b"event: completion\n" + text("a")
    record, _ = a_chunk_each(named, named, named, USAGE, DONE)
    assert (record.fate, record.chunks) == (Fate.OK, 3)


@pytest.mark.parametrize(
    ("told", "tokens", "remark"),
    [
        ('{"prompt_tokens":9.0,"completion_tokens":2.0}', 2, Remark.USAGE_FLOAT),
        ('{"prompt_tokens":9,"completion_tokens":2.5}', None, Remark.USAGE_IMPOSSIBLE),
        ('{"prompt_tokens":9,"completion_tokens":-1}', None, Remark.USAGE_IMPOSSIBLE),
        ('{"prompt_tokens":9,"completion_tokens":"2"}', None, Remark.USAGE_IMPOSSIBLE),
        ('{"prompt_tokens":9,"completion_tokens":1e300}', None, Remark.USAGE_IMPOSSIBLE),
        ('{"prompt_tokens":9,"completion_tokens":true}', None, Remark.USAGE_IMPOSSIBLE),
        ('{"prompt_tokens":-9,"completion_tokens":2}', 2, None),
        ('{"prompt_tokens":9,"completion_tokens":2,"prompt_tokens_details":"x"}', 2, None),
        ('{"prompt_tokens":9,"completion_tokens":0}', None, Remark.NOT_BELIEVED),
    ],
)
def test_usage_is_read_as_far_as_it_can_be_meant(
    told: str, tokens: int | None, remark: Remark | None
) -> None:
    last = (
        b'data: {"choices":[{"text":"","finish_reason":"length"}],"usage":%b}\n\n' % told.encode()
    )
    record, line = a_chunk_each(text("a"), text("b"), text("c"), last, DONE)
    assert (record.fate, record.error) == (Fate.OK, "")
    assert (record.counted, record.tokens) == ((False, tokens) if tokens else (True, 3))
    assert record.remarks == (() if remark is None else (remark,))
    assert line.counters.cells[Cell.TOKENS] == record.tokens


def test_usage_in_every_chunk_is_the_last_one() -> None:
    events = [
        b'data: {"choices":[{"text":"a"}],"usage":{"prompt_tokens":9,"completion_tokens":%d}}\n\n'
        % n
        for n in range(1, 5)
    ]
    record, _ = a_chunk_each(*events, b'data: {"choices":[],"usage":{}}\n\n', DONE)
    assert (record.fate, record.tokens, record.prompt_tokens) == (Fate.OK, 4, 9)
    record, _ = a_chunk_each(*events[:2])  # what broke off has told what it had made by then
    assert (record.fate, record.tokens, record.counted) == (Fate.FAILED, 2, False)


def test_more_cached_tokens_than_there_are_is_no_number() -> None:
    told = b'"prompt_tokens":9,"completion_tokens":1,"prompt_tokens_details":{"cached_tokens":%d}'
    for cached, found in ((9, 9), (10, None)):
        last = b'data: {"choices":[],"usage":{%b}}\n\n' % (told % cached)
        assert a_chunk_each(text("a"), last, DONE)[0].cached_tokens == found


@pytest.mark.parametrize(
    ("request_body", "told", "remarks"),
    [
        (body(10), 3, (Remark.OUTPUT_BELOW,)),
        (body(10, ignore_eos=False), 3, ()),  # it may end by itself
        (body(3), 3, ()),
        (body(2), 3, (Remark.OUTPUT_ABOVE, Remark.NOT_BELIEVED)),
        (body(3, b"[128,129,130]"), 3, (Remark.PROMPT_DIFFERS,)),
        (body(3, b'"some text"'), 3, ()),  # how many tokens a text has is not known here
        (b"", 3, ()),
    ],
)
def test_counts_that_are_not_what_was_asked_are_marked(
    request_body: bytes, told: int, remarks: tuple[Remark, ...]
) -> None:
    last = b'data: {"choices":[],"usage":{"prompt_tokens":2,"completion_tokens":%d}}\n\n' % told
    record, _ = a_chunk_each(text("a"), text("b"), last, DONE, request=request_body)
    assert record.remarks == remarks


def coded(data: bytes, coding: bytes, status: bytes = b"200 OK") -> bytes:
    return (
        b"HTTP/1.1 %b\r\ncontent-type: text/event-stream\r\ncontent-encoding: %b\r\n"
        b"content-length: %d\r\n\r\n%b" % (status, coding, len(data), data)
    )


GOOD = b"".join((text("a"), text("b"), text("c"), USAGE, DONE))
RAW = zlib.compressobj(wbits=-15)
CODED = {
    "gzip": (b"gzip", gzip.compress(GOOD)),
    "its old name": (b"x-gzip", gzip.compress(GOOD)),
    "capitals": (b"GZip", gzip.compress(GOOD)),
    "two members": (b"gzip", gzip.compress(GOOD[:70]) + gzip.compress(GOOD[70:])),
    "padded": (b"gzip", gzip.compress(GOOD) + b"\0" * 100),
    "deflate": (b"deflate", zlib.compress(GOOD)),
    "deflate without a head": (b"deflate", RAW.compress(GOOD) + RAW.flush()),
    "identity": (b"identity", GOOD),
    "nothing": (b"", GOOD),
}


@pytest.mark.parametrize("name", CODED)
def test_a_compressed_stream_is_read(name: str) -> None:
    coding, data = CODED[name]
    stream = coded(data, coding)
    begin = stream.index(b"\r\n\r\n") + 4
    for cut in range(begin + (2 if coding == b"deflate" else 0), len(stream), 7):
        record = Line().feed(stream[:cut], stream[cut:])
        assert (record.fate, record.error, record.tokens) == (Fate.OK, "", 3)


def test_a_compressed_stream_keeps_the_moment_of_each_token() -> None:
    packer = zlib.compressobj(wbits=31)
    events = (text("a"), text("b"), text("c"), USAGE, DONE)
    pieces = [packer.compress(e) + packer.flush(zlib.Z_SYNC_FLUSH) for e in events]
    head = HEAD.replace(b"transfer", b"content-encoding: gzip\r\ntransfer")
    frames = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces]
    line = Line()
    record = line.feed(head + frames[0], *frames[1:], b"0\r\n\r\n")
    assert (record.fate, record.tokens) == (Fate.OK, 3)
    assert (record.ttft or 0, record.tpot or 0) == pytest.approx((0.001, 0.001))


@pytest.mark.parametrize("coding", [b"br", b"zstd", b"gzip, br", b"\xff"])
def test_a_compression_that_cannot_be_read_is_refused_by_its_name(coding: bytes) -> None:
    record = Line().feed(coded(b"\x8b\x07", coding))
    assert record.fate is Fate.FAILED
    assert record.error.startswith(f"the answer is compressed ({coding.decode('latin-1')})")
    refused = Line().feed(coded(b"\x8b\x07", coding, b"429 No"))
    assert refused.error.startswith("HTTP 429: the answer is compressed")


def test_a_compressed_refusal_keeps_its_words() -> None:
    data = gzip.compress(b'{"error":{"message":"slow down"}}')
    assert Line().feed(coded(data, b"gzip", b"429 No")).error == "HTTP 429: slow down"


@pytest.mark.parametrize("coding", [b"gzip", b"deflate"])
def test_what_is_not_compressed_as_it_says_is_a_failure(coding: bytes) -> None:
    record = Line().feed(coded(GOOD, coding))
    assert record.error == f"the answer is not {coding.decode()} as its header says"


def test_a_compressed_bomb_is_given_up_early() -> None:
    bomb = gzip.compress(b": ping\n\n" * (1 << 22))  # 32 MiB of remarks in 32 KiB
    record = Line().feed(coded(bomb, b"gzip"))
    assert record.error == "the gzip answer expands more than 256 times"
    out = 0
    with pytest.raises(Unreadable):
        for piece in Inflater("gzip").feed(bomb):
            assert len(piece) <= 64 * 1024
            out += len(piece)
    assert out < 16 << 20


def test_a_flood_of_one_line_in_a_bomb_is_a_line_without_end() -> None:
    record = Line().feed(coded(gzip.compress(b"data: " + b"x" * (1 << 22)), b"gzip"))
    assert record.error == "a line in the stream is too long"


def test_usage_that_is_not_believed_is_marked_where_chunks_count_in_its_place() -> None:
    last = b'data: {"choices":[],"usage":{"prompt_tokens":2,"completion_tokens":%d}}\n\n'
    for told, marked in ((900, True), (2, False)):
        record, _ = a_chunk_each(text("a"), text("b"), last % told, DONE, request=body(2))
        assert (record.counted, Remark.NOT_BELIEVED in record.remarks) == (marked, marked)
        assert record.tokens == 2


def test_a_stream_with_lone_carriage_returns_has_exact_stamps() -> None:
    events = [text(one).replace(b"\n", b"\r") for one in "abcd"]
    record, line = a_chunk_each(*events, usage(4).replace(b"\n", b"\r"), DONE)
    assert (record.fate, record.chunks, record.last_error) == (Fate.OK, 4, 0.0)
    assert sum(line.counters.itl_unsure.counts) == 0
