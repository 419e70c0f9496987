import json
from typing import Any

import pytest

from llmtop import UsageError
from llmtop.loadgen.plan import Prompts, Target
from llmtop.loadgen.prompts import NONCE, PATTERN, Bodies, check

TARGET = Target("http://127.0.0.1:1", "some/model")


def bodies(prompts: Prompts, wanted: int = 300, target: Target = TARGET, **kw: int) -> list[Any]:
    supply = Bodies(prompts, target, kw.get("seed", 1), kw.get("index", 0), kw.get("count", 1))
    return [json.loads(supply.next()) for _ in range(wanted)]


def test_lengths_are_exact_and_cover_their_range() -> None:
    found = bodies(Prompts(prompt_tokens=(10, 13), output_tokens=(5, 7)))
    assert {len(body["prompt"]) for body in found} == {10, 11, 12, 13}
    assert {body["max_tokens"] for body in found} == {5, 6, 7}


def test_a_body_asks_for_a_stream_with_usage_that_does_not_stop_early() -> None:
    (body,) = bodies(Prompts(temperature=0.5), 1)
    assert body["model"] == "some/model"
    assert body["stream"] is True
    assert body["stream_options"] == {"include_usage": True}
    assert body["ignore_eos"] is True
    assert body["temperature"] == 0.5


def test_ids_are_inside_the_smallest_vocabulary_and_outside_the_special_tokens() -> None:
    ids = {token for body in bodies(Prompts()) for token in body["prompt"]}
    assert min(ids) >= 128 and max(ids) < 365


def test_no_two_prompts_begin_alike() -> None:
    heads = [tuple(body["prompt"][:NONCE]) for body in bodies(Prompts(), 2000)]
    assert len(set(heads)) == 2000


def test_workers_never_ask_the_same() -> None:
    heads = [
        tuple(body["prompt"][:NONCE])
        for index in range(3)
        for body in bodies(Prompts(), 500, index=index, count=3)
    ]
    assert len(set(heads)) == 1500


def test_the_seed_decides() -> None:
    assert bodies(Prompts()) == bodies(Prompts())
    assert bodies(Prompts()) != bodies(Prompts(), seed=2)


def test_a_share_of_the_prompts_has_the_same_beginning() -> None:
    prompts = Prompts(prompt_tokens=(64, 64), shared_prefix_tokens=32, shared_prefix_share=0.5)
    heads = [tuple(body["prompt"][:32]) for body in bodies(prompts, 256)]
    most = max(set(heads), key=heads.count)
    assert 0.35 < heads.count(most) / len(heads) < 0.65
    other = [tuple(b["prompt"][:32]) for b in bodies(prompts, 256, index=1, count=2)]
    assert most in other  # the same for every worker
    tails = {tuple(b["prompt"][32:]) for b in bodies(prompts, 256) if b["prompt"][:32] == [*most]}
    assert len(tails) == heads.count(most)


def test_a_prefix_longer_than_the_prompt_leaves_room_for_the_nonce() -> None:
    prompts = Prompts(prompt_tokens=(8, 8), shared_prefix_tokens=500, shared_prefix_share=1)
    found = bodies(prompts, 100)
    assert {len(body["prompt"]) for body in found} == {8}
    assert len({tuple(body["prompt"]) for body in found}) == 100


def test_repetitive_text_repeats() -> None:
    (body,) = bodies(Prompts(prompt_tokens=(100, 100), repetitive=True), 1)
    text = body["prompt"][NONCE:]
    assert text[:PATTERN] == text[PATTERN : 2 * PATTERN]


@pytest.mark.parametrize("chat", [True, False])
def test_text(chat: bool) -> None:
    target = Target("http://127.0.0.1:1", 'a "quoted" \\ model', chat=chat)
    found = bodies(Prompts(prompt_tokens=(50, 50), text=True), 50, target)
    texts = [b["messages"][0]["content"] if chat else b["prompt"] for b in found]
    assert {len(text.split()) for text in texts} == {50}
    assert len(set(texts)) == 50
    assert found[0]["model"] == 'a "quoted" \\ model'


@pytest.mark.parametrize(
    "prompts",
    [
        Prompts(prompt_tokens=(0, 5)),
        Prompts(prompt_tokens=(6, 5)),
        Prompts(output_tokens=(0, 0)),
        Prompts(prompt_tokens=(1, 10**9)),
        Prompts(shared_prefix_share=1.5),
        Prompts(shared_prefix_tokens=-1),
    ],
)
def test_impossible_prompts_are_refused(prompts: Prompts) -> None:
    with pytest.raises(UsageError):
        check(prompts)
