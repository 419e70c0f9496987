import json
import statistics
from pathlib import Path
from typing import Any

import pytest

from llmtop import UsageError
from llmtop.loadgen.workload import structured_output
from llmtop.loadgen.workload.conversation import MAX_HISTORY
from llmtop.loadgen.workload.dataset import Entry
from llmtop.loadgen.workload.lengths import LogNormal
from llmtop.loadgen.workload.plan import Prompts, Target
from llmtop.loadgen.workload.prompts import NONCE, PATTERN, Bodies, check, prefix_room

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


@pytest.mark.parametrize("count", [1, 3])
def test_the_same_arrivals_bring_the_same_lengths_and_new_prompts(count: int) -> None:
    asked = Prompts(prompt_tokens=(10, 400), output_tokens=(5, 90))
    workers = [Bodies(asked, TARGET, 1, index, count) for index in range(count)]

    def run(arrivals: int) -> list[Any]:
        for worker in workers:
            worker.begin(arrivals)
        return [json.loads(workers[k % count].next()) for k in range(120)]

    first, other, again = run(7), run(8), run(7)
    sizes = [
        [(len(body["prompt"]), body["max_tokens"]) for body in found]
        for found in (first, again, other)
    ]
    assert sizes[0] == sizes[1] != sizes[2]
    heads = {tuple(body["prompt"][:NONCE]) for body in first + other + again}
    assert len(heads) == 360


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


def test_requests_are_the_same_whatever_the_number_of_workers() -> None:
    prompts = Prompts(LogNormal(60, 1, 500), (3, 90), 16, 0.5)
    alone = bodies(prompts, 30)
    shared = [bodies(prompts, 10, index=index, count=3) for index in range(3)]
    assert [body for turn in zip(*shared, strict=True) for body in turn] == alone


def test_log_normal_lengths_are_sent_exactly() -> None:
    found = bodies(Prompts(LogNormal(200, 0.8, 1500), LogNormal(50, 0.5, 200)), 1024)
    lengths = [len(body["prompt"]) for body in found]
    assert statistics.mean(lengths) == pytest.approx(200, rel=0.03)
    assert max(lengths) <= 1500 and len(set(lengths)) > 200
    assert statistics.mean(body["max_tokens"] for body in found) == pytest.approx(50, rel=0.03)


def test_a_recorded_request_has_its_recorded_lengths() -> None:
    supply = Bodies(Prompts((10, 10), (5, 5)), TARGET, seed=1)
    sizes = [(70_000, 3), (0, 7), (20, 0), (1, 1)]
    found = [json.loads(supply.next(size)) for size in sizes]
    assert [len(body["prompt"]) for body in found] == [70_000, 10, 20, NONCE]
    assert [body["max_tokens"] for body in found] == [3, 7, 5, 1]


@pytest.mark.parametrize("chat", [True, False])
def test_a_json_schema_is_asked_for_and_lets_answers_end(chat: bool) -> None:
    target = Target("http://127.0.0.1:1", "m", chat=chat)
    schema = '{"type": "object"}'
    (body,) = bodies(Prompts(json_schema=schema), 1, target)
    assert body["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "answer", "strict": True, "schema": {"type": "object"}},
    }
    assert "ignore_eos" not in body
    assert "ignore_eos" not in bodies(Prompts(ignore_eos=False), 1, target)[0]


def test_the_built_in_schema_and_those_of_files(tmp_path: Path) -> None:
    found = json.loads(structured_output.load("builtin"))
    assert found["type"] == "object" and "required" in found
    path = tmp_path / "schema.json"
    path.write_text('{"type": "object"}')
    assert structured_output.load(str(path)) == '{"type": "object"}'
    for text, words in (("{", "not JSON"), ("[]", "is a JSON object"), ("x" * 70_000, "at most")):
        path.write_text(text)
        with pytest.raises(UsageError, match=words):
            structured_output.load(str(path))
    path.write_bytes(b"\xff")
    with pytest.raises(UsageError, match="not UTF-8"):
        structured_output.load(str(path))
    with pytest.raises(UsageError, match="no such file"):
        structured_output.load(str(tmp_path / "none"))


CHAT = Target("http://127.0.0.1:1", "m", chat=True)


def test_a_conversation_carries_all_that_was_said() -> None:
    supply = Bodies(Prompts((8, 8), (5, 7), turns=3), CHAT, seed=1)
    conversation = supply.conversation()
    assert conversation is not None
    first = json.loads(conversation.body())
    assert [message["role"] for message in first["messages"]] == ["user"]
    assert conversation.turn == 1 and conversation.answered('so "it" \n is \ud800')
    second = json.loads(conversation.body())
    assert second["messages"][:1] == first["messages"]
    assert second["messages"][1] == {"role": "assistant", "content": 'so "it" \n is \ud800'}
    assert len(second["messages"][2]["content"].split()) == 8
    assert (
        conversation.turn == 2
        and conversation.answered("")
        and not conversation.answered("the end")
    )
    assert len(json.loads(conversation.body())["messages"]) == 5
    other = supply.conversation()
    assert other is not None and json.loads(other.body())["messages"] != first["messages"]
    assert Bodies(Prompts(), CHAT, seed=1).conversation() is None


def test_a_conversation_that_grows_too_long_ends() -> None:
    conversation = Bodies(Prompts(turns=1000), CHAT, seed=1).conversation()
    assert conversation is not None
    turns = 0
    while conversation.answered("x" * 200_000):
        turns += 1
        assert len(conversation.body()) <= MAX_HISTORY + 1000
    assert turns == 5


def test_a_datasets_prompts_are_gone_through_in_turn() -> None:
    entries = [Entry([b'"a"'], [3]), Entry([b"[1,2]"], [0])]
    supply = [Bodies(Prompts(), TARGET, 1, index, 2, entries) for index in (0, 1)]
    found = [json.loads(supply[i % 2].next()) for i in range(4)]
    assert [body["prompt"] for body in found] == ["a", [1, 2], "a", [1, 2]]
    assert [body["max_tokens"] for body in found] == [3, 128, 3, 128]


def test_a_datasets_conversation_has_its_own_turns() -> None:
    said = [b'{"role":"user","content":"a"}', b'{"role":"user","content":"b"}']
    prompts = Prompts(turns=9, output_tokens=(4, 4))
    conversation = Bodies(prompts, CHAT, 1, entries=[Entry(said, [0, 6])]).conversation()
    assert conversation is not None
    assert json.loads(conversation.body())["max_tokens"] == 4
    assert conversation.answered("yes")
    body = json.loads(conversation.body())
    assert [message["content"] for message in body["messages"]] == ["a", "yes", "b"]
    assert body["max_tokens"] == 6 and not conversation.answered("no")


def test_a_user_thinks_as_long_as_was_asked_for() -> None:
    supply = Bodies(Prompts(turns=2, think_s=(0.1, 0.2)), CHAT, seed=1)
    pauses = [supply.pause_ns() for _ in range(100)]
    assert 100_000_000 <= min(pauses) < max(pauses) <= 200_000_000


def test_what_does_not_go_together() -> None:
    assert Prompts(turns=2).as_chat and Prompts(chat=True).as_chat and not Prompts().as_chat
    with pytest.raises(UsageError, match="sent as they are"):
        check(Prompts(dataset="x", repetitive=True))


@pytest.mark.parametrize(
    "prompts",
    [
        Prompts(turns=0),
        Prompts(json_schema="["),
        Prompts(think_s=(2.0, 1.0)),
        Prompts(prompt_tokens=LogNormal(5, 1, 2)),
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


@pytest.mark.parametrize(
    ("prompts", "room"),
    [
        (Prompts((128, 128), shared_prefix_tokens=512, shared_prefix_share=1.0), 124),
        (Prompts((64, 256), shared_prefix_tokens=253, shared_prefix_share=0.1), 252),
        (Prompts((64, 256), shared_prefix_tokens=252, shared_prefix_share=1.0), None),
        (Prompts((128, 128), shared_prefix_tokens=512), None),
        (Prompts((2, 2), shared_prefix_tokens=5, shared_prefix_share=1.0), 0),
        (Prompts(LogNormal(100, 1, 900), shared_prefix_tokens=896, shared_prefix_share=1.0), None),
        (Prompts(LogNormal(100, 1, 900), shared_prefix_tokens=897, shared_prefix_share=1.0), 896),
    ],
)
def test_a_prefix_longer_than_any_prompt_is_told(prompts: Prompts, room: int | None) -> None:
    assert prefix_room(prompts) == room
