import pytest

from llmtop import UsageError
from llmtop.loadgen.core.results import Fate, RequestRecord
from llmtop.loadgen.experiments.slo import Slo, parse


def request(
    ttft: float | None, e2e: float | None, tokens: int, fate: Fate = Fate.OK
) -> RequestRecord:
    first = None if ttft is None else 10 + ttft
    last = None if e2e is None else 10 + e2e
    return RequestRecord(10.0, 10.0, first, first, last, 5, tokens, False, fate)


def test_limits_are_read_in_any_unit() -> None:
    assert parse("ttft=500ms,tpot=50ms") == Slo(ttft=0.5, tpot=0.05)
    assert parse(" TTFT = 1.5s , e2e=2m") == Slo(ttft=1.5, e2e=120.0)
    assert str(parse("ttft=0.5s,tpot=50ms")) == "ttft=500ms,tpot=50ms"
    assert parse("tpot=50ms").limits == {"tpot": 0.05}


@pytest.mark.parametrize(
    "text",
    ["", "ttft", "ttft=", "ttft=500", "ttft=-1s", "ttft=0ms", "speed=5ms", "ttft=1s,ttft=2s",
     "ttft=1s,,", "ttft=1e9s", "ttft=nan", "itl=5ms", "\x1b[31mttft=1s"],
)  # fmt: skip
def test_what_is_no_limit_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse(text)


def test_itl_is_refused_with_the_way_out() -> None:
    with pytest.raises(UsageError) as caught:
        parse("itl=20ms")
    assert "tpot" in caught.value.hint


def test_every_limit_must_be_kept() -> None:
    slo = parse("ttft=500ms,tpot=50ms,e2e=2s")
    assert slo.met(request(0.5, 1.0, 11))
    assert not slo.met(request(0.51, 1.0, 11))
    assert not slo.met(request(0.1, 1.0, 11))  # TPOT 90 ms
    assert not slo.met(request(0.1, 2.1, 101))
    assert slo.met(request(0.1, 0.1, 1))  # one token: there is no gap to be too long


def test_failed_cut_and_unanswered_requests_are_misses() -> None:
    slo = parse("ttft=500ms")
    records = [
        request(0.1, 1.0, 9),
        request(0.1, 1.0, 9, Fate.FAILED),
        request(0.1, 1.0, 9, Fate.CUT),
        request(None, None, 0, Fate.FAILED),
    ]
    for limits in (slo, Slo()):
        assert [limits.met(record) for record in records] == [True, False, False, False]
