"""What a read of several events leaves unknown, against arrivals that are known."""

from hypothesis import given
from hypothesis import strategies as st

from llmtop.loadgen.core.results import Fate, RequestRecord
from llmtop.loadgen.protocol.http_parser import ResponseParser
from llmtop.loadgen.protocol.request_state import RequestState
from llmtop.loadgen.statistics.histogram import bucket
from llmtop.loadgen.statistics.shared_counters import Cell, Row, SharedCounters, row
from llmtop.loadgen.statistics.stamp_error import FULL_READ, PollTimes

MS = 1_000_000
HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
ROLE = b'data: {"choices":[{"delta":{"role":"assistant","content":""}}]}\n\n'
TOKEN = b'data: {"choices":[{"delta":{"content":" a"}}]}\n\n'
DONE = b"data: [DONE]\n\n"


def usage(tokens: int) -> bytes:
    return b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":%d}}\n\n' % tokens


def chunk(event: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(event), event)


class Line:
    """A connection with one request, which was intended at 1000 ms and sent at once."""

    usage_seen = False

    def __init__(self, ours_ms: float = 0.0) -> None:
        self.counters, self.polled = SharedCounters(), PollTimes()
        self.answers = ResponseParser(self.polled)
        self.records: list[RequestRecord] = []
        self.reply = RequestState(b"", 1000 * MS, self.counters, self)
        self.answers.expect(self.reply)
        self.reply.sent(1000 * MS, int(ours_ms * MS))

    def first(self, reply: RequestState) -> None:
        pass

    def over(self, reply: RequestState) -> None:
        self.records.append(reply.record(0, 0))

    def read(self, at_ms: float, *events: bytes, floor_ms: float = 0.0) -> None:
        """One read: its last byte came at ``at_ms``, and nothing lay there at ``floor_ms``."""
        self.polled.ns, self.polled.now_ns = int(floor_ms * MS), int(at_ms * MS)
        framed = (event if event in (HEAD, b"") else chunk(event) for event in events)
        self.answers.feed(b"".join(framed), int(at_ms * MS))

    def end(self, at_ms: float, tokens: int, *before: bytes, floor_ms: float = 0.0) -> None:
        self.polled.ns, self.polled.now_ns = int(floor_ms * MS), int(at_ms * MS)
        events = b"".join(map(chunk, (*before, usage(tokens), DONE))) + b"0\r\n\r\n"
        self.answers.feed(events, int(at_ms * MS))

    def counts(self, which: Row) -> list[int]:
        return list(row(self.counters.copy(), which))

    def total(self, which: Row) -> int:
        return sum(self.counts(which))


def test_a_token_that_is_all_of_its_read_is_exact() -> None:
    line = Line()
    line.read(1100, HEAD)
    for at in (1110, 1120, 1130):
        line.read(at, TOKEN)
    line.end(1131, 3)
    (record,) = line.records
    assert record.fate is Fate.OK
    assert (record.first_error, record.last_error, record.send_error) == (0, 0, 0)
    assert line.total(Row.ITL_UNSURE) == 0
    for low, value in ((Row.TTFT_LOW, Row.TTFT), (Row.TPOT_LOW, Row.TPOT), (Row.E2E_LOW, Row.E2E)):
        assert line.counts(low) == line.counts(value)


def test_a_first_token_behind_its_head_and_role_is_exact() -> None:
    line = Line()
    line.read(1100, HEAD, ROLE, TOKEN)
    line.read(1120, TOKEN)
    line.end(1121, 2)
    assert line.records[0].first_error == 0
    assert line.counts(Row.TTFT_LOW) == line.counts(Row.TTFT)


def test_tokens_that_share_a_read_came_after_the_last_look() -> None:
    line = Line()
    line.read(1100, HEAD)
    line.read(1110, TOKEN)
    line.read(1140, TOKEN, TOKEN, floor_ms=1115)
    line.end(1141, 3)
    # Reported are 30 and 0 ms: 30 together, so that the longer one was 15 at least, and the
    # shorter one 15 at most.
    low, high = line.counts(Row.ITL_LOW), line.counts(Row.ITL_HIGH)
    assert line.total(Row.ITL_UNSURE) == 2
    assert (low[bucket(15 * MS)], low[bucket(0)]) == (1, 1)
    assert (high[bucket(30 * MS)], high[bucket(15 * MS)]) == (1, 1)
    assert line.records[0].last_error == 0


def test_a_last_token_before_the_end_in_one_read_may_have_come_earlier() -> None:
    line = Line()
    line.read(1100, HEAD)
    line.read(1110, TOKEN)
    line.end(1130, 2, TOKEN, floor_ms=1127)
    (record,) = line.records
    assert record.last_error == 0.003
    assert record.e2e is not None and record.e2e_low is not None
    assert (round(record.e2e, 6), round(record.e2e_low, 6)) == (0.13, 0.127)
    assert record.tpot is not None and record.tpot_low is not None
    assert round(record.tpot - record.tpot_low, 6) == 0.003


def test_a_whole_answer_in_one_read_may_have_come_at_any_moment_since_it_was_asked() -> None:
    line = Line(ours_ms=2)
    line.read(1200, HEAD, TOKEN, TOKEN)
    line.end(1201, 2)
    (record,) = line.records
    assert record.first_error == 0.2
    assert record.ttft_low == 0
    assert record.tpot is None and record.tpot_high is None  # it is not known at all


def test_a_full_read_says_how_long_the_server_may_have_waited() -> None:
    line = Line()
    line.read(1100, HEAD)
    line.read(1110, TOKEN)
    tokens = FULL_READ // len(chunk(TOKEN)) + 1
    line.polled.ns, line.polled.now_ns = 1150 * MS, 1500 * MS
    line.answers.feed(chunk(TOKEN) * tokens, 1200 * MS)
    line.end(1501, tokens + 1)
    assert line.counters.cells[Cell.STALLED] == 300 * MS
    assert line.records[0].last_error == 0.3


GAPS = st.lists(st.integers(1, 40 * MS), min_size=1, max_size=40)


@given(st.integers(1, 200 * MS), GAPS, st.lists(st.integers(MS, 120 * MS), min_size=1, max_size=30))
def test_whatever_is_read_together_the_truth_lies_within_the_bounds(
    ttft: int, gaps: list[int], pauses: list[int]
) -> None:
    arrivals = [1000 * MS + ttft]
    for gap in gaps:
        arrivals.append(arrivals[-1] + gap)
    line = Line()
    waiting, looked, now, turn = list(arrivals), 1000 * MS, 1000 * MS, 0
    begun = False
    while waiting:
        now += pauses[turn % len(pauses)]
        turn += 1
        here = [at for at in waiting if at <= now]
        waiting = waiting[len(here) :]
        if here:
            ended = [] if waiting else [usage(len(arrivals)), DONE]
            head = [] if begun else [HEAD]
            data = b"".join([*head, *[chunk(TOKEN)] * len(here), *map(chunk, ended)])
            begun = True
            line.polled.ns, line.polled.now_ns = looked, now
            line.answers.feed(data + (b"" if waiting else b"0\r\n\r\n"), here[-1])
        looked = now
    (record,) = line.records
    assert record.fate is Fate.OK
    first, last = (arrivals[0] - 1000 * MS) / 1e9, (arrivals[-1] - 1000 * MS) / 1e9
    assert record.ttft is not None and record.ttft_low is not None
    assert record.ttft_low - 1e-9 <= first <= record.ttft + 1e-9
    assert record.e2e is not None and record.e2e_low is not None
    assert record.e2e_low - 1e-9 <= last <= record.e2e + 1e-9
    if record.tpot is not None:  # not all of it came at one moment
        assert record.tpot_low is not None and record.tpot_high is not None
        assert record.tpot_low - 1e-9 <= (last - first) / len(gaps) <= record.tpot_high + 1e-9
    # Of gaps the bounds hold rank by rank, which is what a percentile needs.
    sure = [a - b for a, b in zip(line.counts(Row.ITL), line.counts(Row.ITL_UNSURE), strict=True)]
    for other, sign in ((Row.ITL_LOW, 1), (Row.ITL_HIGH, -1)):
        bounds = [a + b for a, b in zip(sure, line.counts(other), strict=True)]
        ranked = [place for place, count in enumerate(bounds) for _ in range(count)]
        truth = sorted(map(bucket, gaps))
        assert len(ranked) == len(truth)
        assert all(sign * (t - b) >= -1 for b, t in zip(ranked, truth, strict=True))
