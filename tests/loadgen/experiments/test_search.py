import random
from collections.abc import Callable

from llmtop.loadgen.experiments.search import MOST, Answer, End, Search, Trial

Engine = Callable[[int], Trial]


def engine(capacity: int, rng: random.Random, n: int = 400, sharp: float = 0.2) -> Engine:
    """Throughput grows up to the capacity; attainment falls from 1 to 0 around it."""

    def test(level: int) -> Trial:
        share = min(1.0, max(0.0, 1 - (level / capacity - 1) / sharp))
        met = sum(rng.random() < share for _ in range(n))
        rate = 100.0 * min(level, capacity) * (1 + rng.gauss(0, 0.01))
        return Trial(level, met, n, rate, 0.01)

    return test


def run(search: Search, test: Engine) -> list[int]:
    asked = []
    while (level := search.next_level()) is not None:
        asked.append(level)
        search.feed(test(level))
        assert len(asked) <= MOST
    return asked


def main(search: Search) -> Answer:
    return search.answer(0.95)


def test_it_doubles_then_bisects() -> None:
    search = Search()
    asked = run(search, engine(100, random.Random(0)))
    assert asked[:6] == [4, 8, 16, 32, 64, 128]
    assert all(64 < level < 128 for level in asked[6:8])
    answer = main(search)
    assert answer.end is End.FOUND
    assert answer.level is not None and answer.fails is not None
    assert answer.level <= 101 and answer.fails >= 100
    assert answer.fails <= 1.125 * answer.level or answer.undecided


def test_a_stricter_share_never_holds_more() -> None:
    for seed in range(20):
        search = Search()
        run(search, engine(90, random.Random(seed), sharp=1.0))
        levels = [search.answer(share).level or 0 for share in (0.90, 0.95, 0.99)]
        assert levels == sorted(levels, reverse=True)


def test_the_answer_encloses_the_truth() -> None:
    inside = 0
    for seed in range(40):
        search = Search()
        run(search, engine(77, random.Random(seed), sharp=1.0))
        answer = main(search)
        truth = 77 * 1.05  # attainment crosses 95 % here
        assert answer.level is not None and answer.fails is not None
        inside += answer.level <= truth <= answer.fails
    assert inside >= 36


def test_what_holds_everywhere_is_said_to_hold_beyond() -> None:
    search = Search(top=64)
    asked = run(search, engine(1000, random.Random(0)))
    assert asked[:5] == [4, 8, 16, 32, 64]
    answer = main(search)
    assert (answer.end, answer.level, answer.fails) == (End.BEYOND, 64, None)
    knee = search.knee()
    assert knee is not None and knee.open_end


def test_what_holds_nowhere_is_tried_down_to_one_stream() -> None:
    search = Search()
    asked = run(search, lambda level: Trial(level, 0, 100, 50.0 * level, 0.01))
    assert 1 in asked
    assert main(search).end is End.NEVER


def test_too_few_requests_leave_it_undecided() -> None:
    search = Search(top=8)
    run(search, lambda level: Trial(level, 9, 10, 100.0 * level, 0.01))
    answer = main(search)
    assert answer.end is End.UNDECIDED
    assert answer.level is None


def test_full_marks_at_higher_levels_speak_for_lower_ones_only() -> None:
    search = Search(top=8)
    for level, met in ((4, 200), (8, 40)):
        search.feed(Trial(level, met, met, 100.0 * level, 0.01))
    assert main(search).level == 4  # 40 of 40 at 8 are too few, whatever 4 streams did
    search = Search(top=8)
    for level, met in ((4, 40), (8, 200)):
        search.feed(Trial(level, met, met, 100.0 * level, 0.01))
    assert main(search).level == 8


def test_a_hiccup_of_the_client_is_tried_again_and_a_second_one_is_its_limit() -> None:
    hiccups = [8]

    def once(level: int) -> Trial:
        valid = level not in hiccups
        if not valid:
            hiccups.remove(level)
        return Trial(level, 300, 300, 10.0 * level, 0.01, valid)

    search = Search(top=32)
    assert run(search, once)[:4] == [4, 8, 8, 16]
    assert search.ceiling is None
    search = Search(top=64)
    asked = run(search, lambda level: Trial(level, 300, 300, 10.0 * level, 0.01, level < 16))
    assert asked[:4] == [4, 8, 16, 16] and max(asked) == 16
    assert search.ceiling == 16
    assert (main(search).end, main(search).level) == (End.BEYOND, 8)


def test_a_dead_engine_costs_few_levels() -> None:
    search = Search()
    asked = run(search, lambda level: Trial(level, 0, 0, 0.0, None, stalled=True))
    assert len(asked) <= 4
    assert main(search).level is None
    assert search.knee() is None


def test_without_limits_only_the_knee_is_sought() -> None:
    search = Search(with_limits=False)
    asked = run(search, engine(100, random.Random(2)))
    assert max(asked) <= 256
    knee = search.knee()
    assert knee is not None and knee.low <= 90 <= (knee.high or 0)


def test_a_cliff_is_told() -> None:
    search = Search()
    run(search, engine(100, random.Random(0), sharp=0.02))
    assert main(search).cliff


def test_the_levels_left_count_down() -> None:
    search, left = Search(top=256), []
    test = engine(100, random.Random(1))
    while (level := search.next_level()) is not None:
        left.append(search.left)
        search.feed(test(level))
    assert left[0] > left[4] > left[-1] >= 1
