import json
from pathlib import Path
from typing import Any

import pytest

from llmtop import UsageError
from llmtop.loadgen.workload import dataset
from llmtop.loadgen.workload.dataset import Entry, pack, sample, unpack

LONG = "x" * 400


def write(folder: Path, content: str | list[Any], name: str = "prompts.json") -> str:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content, indent=1))
    return str(path)


def read(path: str, chat: bool = False, turns: int = 1, seed: int = 1) -> list[Entry]:
    return sample(path, chat=chat, turns=turns, seed=seed)


def talk(*said: str) -> dict[str, Any]:
    names = ("human", "gpt")
    turns = [{"from": names[i % 2], "value": text} for i, text in enumerate(said)]
    return {"id": "x", "conversations": turns}


def asked(entry: Entry) -> list[Any]:
    return [json.loads(b"[" + one + b"]") for one in entry.asked]


def test_share_gpt_gives_the_users_turns_and_about_how_long_the_answers_were(
    tmp_path: Path,
) -> None:
    path = write(tmp_path, [talk("one", LONG, "two", "y" * 40, "three")])
    (entry,) = read(path, chat=True, turns=8)
    assert asked(entry) == [[{"role": "user", "content": w}] for w in ("one", "two", "three")]
    assert entry.output_tokens == [100, 10, 0]
    assert asked(read(path, chat=True, turns=2)[0])[-1] == [{"role": "user", "content": "two"}]
    (plain,) = read(path, turns=8)
    assert (asked(plain), plain.output_tokens) == ([["one"]], [100])


def test_what_a_user_did_not_begin_is_begun_by_the_user(tmp_path: Path) -> None:
    system = {"from": "system", "value": "be brief"}
    said = {
        "conversations": [{"from": "gpt", "value": "hi"}, system, *talk("a", "b")["conversations"]]
    }
    nobody = {"conversations": [{"from": "gpt", "value": "hi"}]}
    (entry,) = read(write(tmp_path, [nobody, said]), chat=True)
    assert asked(entry) == [
        [{"role": "system", "content": "be brief"}, {"role": "user", "content": "a"}]
    ]


def test_json_lines(tmp_path: Path) -> None:
    lines = [
        {"prompt": "a", "max_tokens": 7},
        {"prompt": "b", "output_tokens": 8},
        {"prompt": [1, 2, 3]},
        talk("c", LONG),
    ]
    path = write(tmp_path, "\n\n".join(map(json.dumps, lines)), "p.jsonl")
    found = {json.dumps(asked(entry)): entry.output_tokens for entry in read(path)}
    assert found == {'[["a"]]': [7], '[["b"]]': [8], "[[[1, 2, 3]]]": [0], '[["c"]]': [100]}


def test_messages_are_sent_whole_in_a_chat(tmp_path: Path) -> None:
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "ü \u2028"}]
    path = write(tmp_path, json.dumps({"messages": messages, "max_tokens": 3}), "p.jsonl")
    (entry,) = read(path, chat=True)
    assert (asked(entry), entry.output_tokens) == ([messages], [3])


@pytest.mark.parametrize(
    ("text", "chat", "where", "words"),
    [
        ('{"prompt": "a"}\n\n{"prompt": 7}\n', False, ":3", "neither text nor a list"),
        ('{"prompt": "a"}\n{"prompt": ', False, ":2", "not JSON"),
        ('{"prompt": "a"}\n[]\n', False, ":2", "not a JSON object"),
        ('{"prompt": ""}', False, ":1", "neither text nor a list"),
        ('{"prompt": [1, -2]}', False, ":1", "neither text nor a list"),
        ('{"prompt": [1, 2]}', True, ":1", "token ids cannot be sent in a chat"),
        ('{"messages": [{"role": "user"}]}', False, ":1", "messages are for chats"),
        ('{"messages": []}', True, ":1", "not a list of messages"),
        ('{"messages": [7]}', True, ":1", "a message needs a role"),
        ('{"text": "a"}', False, ":1", "no prompt, messages or conversations"),
        ('{"prompt": "a", "max_tokens": -1}', False, ":1", "max_tokens"),
        ('[\n {"prompt": "a"},\n {"prompt": 3}\n]', False, ":3: record 2", "neither"),
        ('[{"prompt": "a"}, 7]', False, ":1: record 2", "not a JSON object"),
        ('[{"prompt": "a"},\n{"prompt": }]', False, ":2: record 2", "not JSON"),
        ('[{"prompt": "a"}\n', False, ":2: record 2", "] is missing"),
        ('[{"conversations": [{"from": "dog", "value": "wuff"}]}]', False, ":1: record 1", "dog"),
        ('[{"conversations": [{"from": "human"}]}]', False, ":1: record 1", "from and value"),
    ],
)  # fmt: skip
def test_a_fault_names_file_and_line(
    tmp_path: Path, text: str, chat: bool, where: str, words: str
) -> None:
    path = write(tmp_path, text)
    with pytest.raises(UsageError) as caught:
        read(path, chat)
    assert caught.value.message.startswith(f"{path}{where}: ")
    assert words in caught.value.message


@pytest.mark.parametrize("text", ["", "\n \n", "[]", '[{"conversations": []}]'])
def test_a_file_without_prompts(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match="holds no prompts"):
        read(write(tmp_path, text))


def test_a_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read: no such file"):
        read(str(tmp_path / "none"))
    path = tmp_path / "latin"
    path.write_bytes(b'{"prompt": "\xe9"}')
    with pytest.raises(UsageError, match="not UTF-8"):
        read(str(path))


def test_the_seed_decides_the_order(tmp_path: Path) -> None:
    path = write(tmp_path, [{"prompt": str(number)} for number in range(50)])
    assert read(path) == read(path) != read(path, seed=2)
    assert sorted(entry.asked[0] for entry in read(path)) == sorted(
        b'"%d"' % number for number in range(50)
    )


def test_a_large_file_is_read_in_pieces_and_a_fair_sample_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset, "_CHUNK", 100)
    monkeypatch.setattr(dataset, "MAX_ENTRIES", 100)
    path = write(
        tmp_path, [{"prompt": f"{number} {'x' * (number % 200)}"} for number in range(2000)]
    )
    numbers: list[int] = []
    for seed in range(20):
        found = read(path, seed=seed)
        assert len(found) == 100
        numbers += [int(asked(entry)[0][0].split()[0]) for entry in found]
    # 2,000 draws out of 0..1999: the mean's own deviation is 13.
    assert sum(numbers) / len(numbers) == pytest.approx(999.5, abs=60)
    assert len(set(numbers)) > 1100


def test_the_bytes_kept_are_bounded_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "MAX_SAMPLE", 10_000)
    path = write(tmp_path, [{"prompt": f"{number} {LONG}"} for number in range(500)])
    found = read(path)
    assert len(found) > 5 and sum(entry.size for entry in found) <= 10_000


def test_a_record_that_is_far_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "MAX_RECORD", 1000)
    monkeypatch.setattr(dataset, "_CHUNK", 100)
    long = json.dumps({"prompt": "x" * 5000})
    for text in (f"[{long}]", f'{{"prompt": "a"}}\n{long}', long):
        with pytest.raises(UsageError, match="above 1,000 characters"):
            read(write(tmp_path, text))


def test_entries_cross_to_the_workers_as_they_are() -> None:
    entries = [Entry([b'"a"', b'"b"'], [1, 0])]
    assert unpack(pack(entries)) == entries
