from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmtop.loadgen.protocol.sse import MAX_LINE, Splitter, TooLong

STREAMS = [
    (b'data: {"a": 1}\n\ndata: [DONE]\n\n', [b'{"a": 1}', b"[DONE]"]),
    (b"data: a\r\n\r\ndata: b\r\n\r\n", [b"a", b"b"]),
    (b"data: a\r\rdata: b\r\r", [b"a", b"b"]),
    (b": keep-alive\n\ndata: a\n: more\n\n:\n\n", [b"a"]),
    (b"data: one\ndata: two\ndata:\n\n", [b"one\ntwo\n"]),
    (b"event: token\nid: 7\nretry: 3\ndata:a\n\n", [b"a"]),
    (b"data:  two spaces\n\n", [b" two spaces"]),
    (b"data\n\ndata: x\n\n", [b"", b"x"]),
    (b"\xef\xbb\xbfdata: a\n\n", [b"a"]),
    (b"\n\n\ndata: a\n\n\n\n", [b"a"]),
    (b"data: not finished\n", []),
    ("data: prüfung \u2028 x\n\n".encode(), ["prüfung \u2028 x".encode()]),
]


def feed(pieces: list[bytes]) -> list[bytes]:
    splitter = Splitter()
    return [event for piece in pieces for event in splitter.feed(piece)]


@pytest.mark.parametrize(("stream", "events"), STREAMS)
def test_every_split_into_three_gives_the_same_events(stream: bytes, events: list[bytes]) -> None:
    for first in range(len(stream) + 1):
        for second in range(first, len(stream) + 1):
            pieces = [stream[:first], stream[first:second], stream[second:]]
            assert feed(pieces) == events, pieces


@pytest.mark.parametrize(("stream", "events"), STREAMS)
def test_byte_by_byte(stream: bytes, events: list[bytes]) -> None:
    assert feed([bytes([byte]) for byte in stream]) == events


PAYLOAD = st.binary(max_size=60).map(lambda b: b.replace(b"\r", b"").replace(b"\n", b""))


@given(
    st.lists(st.lists(PAYLOAD, min_size=1, max_size=3), max_size=8),
    st.sampled_from([b"\n", b"\r\n", b"\r"]),
    st.lists(st.integers(0, 400), max_size=12),
    st.booleans(),
)
def test_whatever_is_sent_comes_out_however_it_is_cut(
    events: list[list[bytes]], end: bytes, cuts: list[int], comments: bool
) -> None:
    stream = b": hello" + end
    for lines in events:
        stream += b"".join(b"data: " + line + end for line in lines)
        stream += (b":c" + end if comments else b"") + end
    places = sorted({min(cut, len(stream)) for cut in cuts} | {0, len(stream)})
    pieces = [stream[a:b] for a, b in pairwise(places)]
    assert feed(pieces) == [b"\n".join(lines) for lines in events]


@given(st.lists(st.binary(max_size=50), max_size=20))
def test_any_bytes_at_all_split_as_if_they_were_whole(pieces: list[bytes]) -> None:
    assert feed(pieces) == feed([b"".join(pieces)])


def test_an_endless_line_is_given_up_and_not_kept() -> None:
    splitter = Splitter()
    with pytest.raises(TooLong):
        for _ in range(10_000):
            splitter.feed(b"x" * 1000)
            assert splitter.kept <= MAX_LINE + 1000
    assert splitter.kept <= MAX_LINE


def test_an_endless_event_is_given_up_and_not_kept() -> None:
    splitter = Splitter()
    with pytest.raises(TooLong):
        for _ in range(10_000):
            splitter.feed(b"data: " + b"x" * 1000 + b"\n")
    assert splitter.kept <= MAX_LINE + 1002


def test_a_long_line_in_one_piece_is_refused_like_one_in_many() -> None:
    line = b"data: " + b"x" * MAX_LINE + b"\n\n"
    with pytest.raises(TooLong):
        feed([b"data: a\n\n", line])
    with pytest.raises(TooLong):
        feed([b"data: a\n\n", line[:100], line[100:]])


def test_after_lone_carriage_returns_nothing_is_kept() -> None:
    splitter = Splitter()
    for text in (b"a", b"b"):
        assert splitter.feed(b"data: " + text + b"\r\r") == [text]
        assert splitter.clean  # so the stamp of its read is that of the event's last byte
    assert splitter.feed(b"\n") == [] and splitter.clean
    assert splitter.feed(b"data: c\n\n") == [b"c"]
