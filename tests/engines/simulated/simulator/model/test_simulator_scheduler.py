"""The simulated engine's scheduler: no clock, no sockets."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from llmtop.engines.simulated.simulator.model.blocks import BlockPool
from llmtop.engines.simulated.simulator.model.request import Request, Stage
from llmtop.engines.simulated.simulator.model.scheduler import Emission, Limits, Plan, Scheduler
from llmtop.engines.simulated.simulator.model.speculation import Speculation
from llmtop.engines.simulated.simulator.model.tokens import GeneratedText, Token

SIZE = 4  # tokens a block
WIDE = Limits(max_num_seqs=64, max_num_batched_tokens=1000)


def make(
    limits: Limits = WIDE,
    blocks: int = 100,
    *,
    caching: bool = True,
    speculation: Speculation | None = None,
    asynchronous: bool = False,
) -> Scheduler:
    pool = BlockPool(blocks, SIZE, caching)
    return Scheduler(limits, pool, random.Random(0), speculation, asynchronous)


def ask(
    serial: int, prompt: int | Sequence[Token], target: int = 4, affinity: float = 1.0
) -> Request:
    tokens: list[Token] = []
    if isinstance(prompt, int):
        tokens = [1000 * serial + i for i in range(prompt)]
    if not isinstance(prompt, int):
        tokens = list(prompt)
    return Request(serial, tokens, target, GeneratedText(serial), affinity=affinity)


def step(scheduler: Scheduler) -> tuple[Plan, list[Emission]]:
    plan = scheduler.schedule()
    assert plan is not None
    return plan, scheduler.complete(plan)


def drain(scheduler: Scheduler) -> Counter[int]:
    """Tokens emitted, by serial, until nothing is left to do."""
    got: Counter[int] = Counter()
    for _ in range(10_000):
        plan = scheduler.schedule()
        if plan is None:
            return got
        for emission in scheduler.complete(plan):
            got[emission.request.serial] += emission.tokens
    raise AssertionError("it never ends")


def serials(requests: object) -> list[int]:
    return [request.serial for request in requests]  # type: ignore[attr-defined]


def test_a_request_gets_its_first_token_with_its_prefill_and_one_a_step_after() -> None:
    scheduler = make()
    scheduler.add(ask(1, prompt=10, target=3))
    plan, emitted = step(scheduler)
    assert (plan.load.tokens, plan.load.emitted) == (10, 1)
    assert [(e.tokens, e.first) for e in emitted] == [(1, True)]
    plan, emitted = step(scheduler)
    assert (plan.load.tokens, plan.load.context) == (1, 11)
    assert [(e.tokens, e.first) for e in emitted] == [(1, False)]
    step(scheduler)
    assert scheduler.schedule() is None
    assert scheduler.pool.used == 0


def test_long_prompts_are_prefilled_in_chunks_beside_the_decodes() -> None:
    scheduler = make(Limits(8, max_num_batched_tokens=8))
    scheduler.add(ask(1, prompt=3, target=9))
    step(scheduler)
    scheduler.add(ask(2, prompt=20, target=2))
    chunks = []
    for _ in range(3):
        plan, emitted = step(scheduler)
        chunks.append([(item.request.serial, item.tokens) for item in plan.work])
        assert 1 in {e.request.serial for e in emitted}
    assert chunks == [[(1, 1), (2, 7)], [(1, 1), (2, 7)], [(1, 1), (2, 6)]]
    assert scheduler.running[1].generated == 1


def test_the_queue_is_first_come_first_served() -> None:
    scheduler = make(Limits(max_num_seqs=2, max_num_batched_tokens=1000))
    for serial, prompt in enumerate((5, 50, 1, 1), start=1):
        scheduler.add(ask(serial, prompt))
    plan, _ = step(scheduler)
    assert serials(plan.admitted) == [1, 2]
    assert serials(scheduler.waiting) == [3, 4]


def test_a_head_that_does_not_fit_is_not_overtaken() -> None:
    scheduler = make(blocks=10)
    for serial, prompt in enumerate((20, 30, 1), start=1):
        scheduler.add(ask(serial, prompt))
    step(scheduler)
    assert serials(scheduler.running) == [1]
    assert serials(scheduler.waiting) == [2, 3]


def test_out_of_blocks_the_latest_arrival_gives_way_and_is_not_streamed_twice() -> None:
    scheduler = make(blocks=6, caching=False)
    for serial in (1, 2):
        scheduler.add(ask(serial, prompt=8, target=12))
    got: Counter[int] = Counter()
    preempted: list[int] = []
    while (plan := scheduler.schedule()) is not None:
        preempted += serials(plan.preempted)
        for emission in scheduler.complete(plan):
            got[emission.request.serial] += emission.tokens
    assert preempted
    assert set(preempted) == {2}
    assert scheduler.totals.preemptions == len(preempted)
    assert got == {1: 12, 2: 12}


def test_a_preempted_request_is_recomputed_with_what_it_had_generated() -> None:
    scheduler = make(caching=False)
    request = ask(1, prompt=8, target=10)
    scheduler.add(request)
    for _ in range(3):
        step(scheduler)
    scheduler.limits = Limits(0, 1000)
    assert scheduler.evict() == 1
    assert (scheduler.pool.used, request.stage) == (0, Stage.WAITING)
    scheduler.limits = WIDE
    plan, emitted = step(scheduler)
    assert plan.load.tokens == 8 + 3
    assert [(e.tokens, e.first) for e in emitted] == [(1, False)]


def test_a_lower_cap_drains_and_evict_does_it_at_once() -> None:
    scheduler = make()
    for serial in range(1, 9):
        scheduler.add(ask(serial, prompt=4, target=50))
    step(scheduler)
    scheduler.limits = Limits(3, 1000)
    step(scheduler)
    assert len(scheduler.running) == 8
    assert scheduler.evict() == 5
    assert serials(scheduler.running) == [1, 2, 3]
    assert serials(scheduler.waiting) == [4, 5, 6, 7, 8]
    assert (scheduler.totals.evictions, scheduler.totals.preemptions) == (5, 5)
    assert drain(scheduler) == {1: 48, 2: 48, 3: 48} | dict.fromkeys(range(4, 9), 48)


def test_a_shared_prefix_is_found_in_whole_blocks() -> None:
    scheduler = make()
    prefix: list[Token] = list(range(10))
    scheduler.add(ask(1, [*prefix, 77, 78]))
    drain(scheduler)
    second = ask(2, [*prefix, 88, 89, 90])
    scheduler.add(second)
    plan, _ = step(scheduler)
    assert second.hits == 8  # two blocks of four; the third differs
    assert plan.load.tokens == 13 - 8
    assert (scheduler.totals.prefix_queries, scheduler.totals.prefix_hits) == (12 + 13, 8)


def test_at_least_one_token_of_a_known_prompt_is_computed() -> None:
    scheduler = make()
    prompt: list[Token] = list(range(8))
    for serial in (1, 2):
        scheduler.add(ask(serial, prompt, target=1))
        plan, emitted = step(scheduler)
        assert len(emitted) == 1
    assert plan.load.tokens == 4


def test_an_answer_sent_back_as_history_is_found_too() -> None:
    scheduler = make()
    first = ask(1, list("abcdefgh"), target=9)
    scheduler.add(first)
    drain(scheduler)
    answer: list[Token] = [first.output.piece(i) for i in range(9)]
    second = ask(2, [*"abcdefgh", *answer, "next"])
    scheduler.add(second)
    step(scheduler)
    assert second.hits == 16


def test_without_caching_nothing_is_looked_up() -> None:
    scheduler = make(caching=False)
    for serial in (1, 2):
        scheduler.add(ask(serial, [*range(12)]))
        drain(scheduler)
    assert (scheduler.totals.prefix_queries, scheduler.totals.prefix_hits) == (0, 0)


def test_the_oldest_free_block_is_forgotten_first() -> None:
    scheduler = make(blocks=6)
    for serial in (1, 2, 3):
        scheduler.add(ask(serial, [serial] * 8, target=1))
        drain(scheduler)
    scheduler.add(ask(4, [4] * 12, target=1))
    drain(scheduler)
    again = [
        ask(5, [3, 3, 3, 3, 3, 3, 3, 3, 0], target=1),
        ask(6, [1, 1, 1, 1, 1, 1, 1, 1, 0], target=1),
    ]
    for request in again:
        scheduler.add(request)
        drain(scheduler)
    assert [request.hits for request in again] == [8, 0]


def test_a_request_that_arrives_while_a_step_is_planned_waits_one_step_more() -> None:
    scheduler = make(asynchronous=True)
    scheduler.add(ask(1, prompt=4, target=9))
    step(scheduler)
    scheduler.add(ask(2, prompt=4))
    assert scheduler.queued == 1
    assert serials(step(scheduler)[0].admitted) == []
    assert serials(step(scheduler)[0].admitted) == [2]


def test_speculation_gives_several_tokens_a_step_and_counts_them() -> None:
    scheduler = make(Limits(8, 1000, 3), speculation=Speculation("ngram", 3, acceptance=1.0))
    scheduler.add(ask(1, prompt=4, target=9))
    step(scheduler)
    plan, emitted = step(scheduler)
    assert (plan.load.tokens, plan.load.drafts) == (4, 3)
    assert [(e.tokens, e.drafts) for e in emitted] == [(4, 3)]
    assert drain(scheduler) == {1: 4}
    totals = scheduler.totals
    assert (totals.drafts, totals.draft_tokens, totals.accepted_tokens) == (2, 6, 6)
    assert totals.accepted_at == [2, 2, 2]


def test_refused_drafts_cost_but_give_one_token() -> None:
    scheduler = make(Limits(8, 1000, 3), speculation=Speculation("draft", 3, acceptance=0.0))
    scheduler.add(ask(1, prompt=4, target=6))
    assert drain(scheduler) == {1: 6}
    assert scheduler.totals.accepted_tokens == 0
    assert scheduler.totals.draft_tokens == 3 + 3 + 2 + 1  # never beyond the target
    assert scheduler.pool.used == 0


def test_speculation_is_off_at_zero_tokens() -> None:
    scheduler = make(Limits(8, 1000, 0), speculation=Speculation("ngram", 3, 1.0))
    scheduler.add(ask(1, prompt=4, target=6))
    drain(scheduler)
    assert scheduler.totals.drafts == 0


def test_what_can_be_guessed_is_accepted_more_often() -> None:
    rates = []
    for affinity in (1.0, 0.2):
        scheduler = make(Limits(8, 1000, 4), speculation=Speculation("draft", 4, 0.8))
        scheduler.add(ask(1, prompt=4, target=300, affinity=affinity))
        drain(scheduler)
        rates.append(scheduler.totals.accepted_tokens / scheduler.totals.drafts)
    assert rates[0] > 1.5 * rates[1]


def test_abort_frees_the_blocks_wherever_the_request_is() -> None:
    scheduler = make(Limits(1, 1000), asynchronous=True)
    running, waiting = ask(1, 8, 50), ask(2, 8)
    scheduler.add(running)
    scheduler.add(waiting)
    plan = scheduler.schedule()
    assert plan is not None
    late = ask(3, 8)
    scheduler.add(late)
    for request in (running, waiting, late):  # the first while its step is on the GPU
        scheduler.abort(request)
        scheduler.abort(request)
    assert scheduler.complete(plan) == []
    assert (scheduler.pool.used, scheduler.queued, scheduler.schedule()) == (0, 0, None)


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(1, 16), st.integers(1, 12)),
        st.tuples(st.just("step"), st.integers(1, 5), st.just(0)),
        st.tuples(st.just("abort"), st.integers(0, 40), st.just(0)),
        st.tuples(st.just("seqs"), st.integers(1, 6), st.integers(0, 1)),
        st.tuples(st.just("budget"), st.integers(4, 40), st.just(0)),
        st.tuples(st.just("drafts"), st.integers(0, 3), st.just(0)),
        st.tuples(st.just("mid-step abort"), st.integers(0, 40), st.just(0)),
    ),
    max_size=60,
)


class Driven:
    """A scheduler, what was asked of it, and the tokens that it streamed."""

    def __init__(self, scheduler: Scheduler, *, speculative: bool) -> None:
        self.scheduler, self.speculative = scheduler, speculative
        self.asked: list[Request] = []
        self.aborted: set[int] = set()
        self.got: Counter[int] = Counter()

    def do(self, kind: str, first: int, second: int) -> None:
        """Carry out one operation of OPERATIONS."""
        if kind == "add":
            self.add(first, second)
        elif kind == "step":
            for _ in range(first):
                self.step()
        elif kind == "abort":
            self.abort(first)
        elif kind == "mid-step abort":
            self.step(first)
        else:
            self.limit(kind, first, evict=bool(second))

    def add(self, length: int, target: int) -> None:
        tokens: list[Token] = list(range(length)) if target % 2 else [len(self.asked)] * length
        request = ask(len(self.asked), tokens, target)
        self.asked.append(request)
        self.scheduler.add(request)

    def abort(self, index: int) -> None:
        if self.asked:
            request = self.asked[index % len(self.asked)]
            if request.stage is not Stage.FINISHED:
                self.aborted.add(request.serial)
            self.scheduler.abort(request)

    def step(self, abort_at: int | None = None) -> bool:
        """One step; whether there was work. abort_at: a request that is aborted during it."""
        plan = self.scheduler.schedule()
        if plan is None:
            return False
        assert plan.load.tokens <= self.scheduler.limits.max_num_batched_tokens
        if plan.admitted:
            assert len(self.scheduler.running) <= self.scheduler.limits.max_num_seqs
        assert all(item.tokens > 0 for item in plan.work)
        if abort_at is not None:
            self.abort(abort_at)
        for emission in self.scheduler.complete(plan):
            self.got[emission.request.serial] += emission.tokens
        return True

    def limit(self, kind: str, value: int, *, evict: bool) -> None:
        now = self.scheduler.limits
        seqs, budget = now.max_num_seqs, now.max_num_batched_tokens
        drafts = now.num_speculative_tokens
        if kind == "seqs":
            self.scheduler.limits = Limits(value, budget, drafts)
            if evict:
                self.scheduler.evict()
                assert len(self.scheduler.running) <= value
        elif kind == "budget":
            self.scheduler.limits = Limits(seqs, value, drafts)
        elif self.speculative:
            self.scheduler.limits = Limits(seqs, budget, value)

    def check_queues(self) -> None:
        running, waiting = serials(self.scheduler.running), serials(self.scheduler.waiting)
        assert running + waiting == sorted(running + waiting)
        held = {block for request in self.scheduler.running for block in request.blocks}
        assert self.scheduler.pool.used == len(held)

    def check_end(self, blocks: int) -> None:
        assert (self.scheduler.pool.used, self.scheduler.pool.free) == (0, blocks)
        for request in self.asked:
            assert request.stage is Stage.FINISHED
            assert self.got[request.serial] == request.generated
            if request.serial not in self.aborted:
                assert request.generated == request.target


@settings(max_examples=150, deadline=None)
@given(OPERATIONS, st.integers(8, 20), st.booleans(), st.booleans(), st.booleans())
def test_whatever_happens_no_block_leaks_and_every_token_is_streamed_once(
    operations: list[tuple[str, int, int]],
    blocks: int,
    caching: bool,
    asynchronous: bool,
    speculative: bool,
) -> None:
    speculation = Speculation("draft", 3, 0.6) if speculative else None
    limits = Limits(4, 24, 3 if speculative else 0)
    driven = Driven(
        make(limits, blocks, caching=caching, speculation=speculation, asynchronous=asynchronous),
        speculative=speculative,
    )
    for kind, first, second in operations:
        driven.do(kind, first, second)
        driven.check_queues()
    for _ in range(2000):
        if not driven.step():
            break
    driven.check_end(blocks)
