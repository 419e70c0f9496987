"""Prompts that an engine has had before are said, with how often and what its cache found."""

import os
import stat
from pathlib import Path

import pytest

from llmtop.loadgen.workload.plan import Prompts
from llmtop.operations.repeats import FILE, KEPT_S, MOST, Repeats, SeedBook, named, repeat_words
from llmtop.values import replace


def test_a_small_dataset_that_was_sent_many_times_is_said_with_what_was_cached() -> None:
    found = Repeats("this dataset (ds.jsonl)", None, 2, 88, 0.97)
    assert repeat_words(found) == [
        "each of 2 prompts was sent 44 times: a prefix cache finds them"
        " (cached 97% of prompt tokens)"
    ]
    assert found.times == 44
    short = replace(found, cached=0.0)  # shorter than a block of the cache
    assert repeat_words(short) == [
        "each of 2 prompts was sent 44 times: a prefix cache may find them"
        " (cached 0% of prompt tokens)"
    ]
    one = Repeats("x", None, 1, 3, None)
    assert repeat_words(one) == ["the one prompt was sent 3 times: a prefix cache finds them"]
    some = Repeats("x", None, 100, 105, None)
    assert repeat_words(some) == ["5 of 105 requests repeated a prompt: a prefix cache finds them"]
    assert repeat_words(Repeats("x", None, 100, 100, 0.1)) == []
    assert repeat_words(Repeats("seed 7", None, None, 900, 0.1)) == []


def test_a_seed_that_was_sent_before_is_said() -> None:
    found = Repeats("seed 7", 95.0, None, 40, 0.98)
    assert repeat_words(found) == [
        "seed 7 was sent to this engine 1m35s ago: a prefix cache finds its prompts"
        " (cached 98% of prompt tokens)"
    ]


def test_a_seed_is_known_again_on_the_same_engine_alone(tmp_path: Path) -> None:
    now = [1000.0]
    folder = tmp_path / "state"
    book = SeedBook(folder, lambda: now[0])
    assert book.before_s("one 4711 9.0", "seed 7") is None
    book.add("one 4711 9.0", "seed 7")
    now[0] += 60
    again = SeedBook(folder, lambda: now[0])
    assert again.before_s("one 4711 9.0", "seed 7") == 60
    assert again.before_s("one 4800 99.0", "seed 7") is None  # it was restarted: its cache is empty
    assert again.before_s("one 4711 9.0", "seed 8") is None
    assert stat.S_IMODE(os.stat(folder / FILE).st_mode) == 0o600
    now[0] += KEPT_S
    assert again.before_s("one 4711 9.0", "seed 7") is None


@pytest.mark.parametrize("content", [b"", b"{", b'[["a"]]', b"\xff", b"[" * 5000])
def test_what_cannot_be_read_is_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    book = SeedBook(tmp_path)
    assert book.before_s("one", "seed 7") is None
    book.add("one", "seed 7")
    assert book.before_s("one", "seed 7") is not None


def test_a_folder_that_cannot_be_written_is_no_reason_to_fail(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    book = SeedBook(tmp_path / "file" / "state")
    book.add("one", "seed 7")
    assert book.before_s("one", "seed 7") is None


def test_the_book_is_bounded(tmp_path: Path) -> None:
    book = SeedBook(tmp_path)
    (tmp_path / FILE).write_text(
        "[" + ",".join(f'["one","seed {n}",{9e9 if n < 0 else 1e9}]' for n in range(MOST * 2)) + "]"
    )
    early = SeedBook(tmp_path, lambda: 1e9 + 1)
    early.add("one", "new")
    assert early.before_s("one", "new") == 0
    assert (tmp_path / FILE).read_bytes().count(b"seed") == MOST - 1
    assert book.before_s("one", "seed 3") is None


def test_what_tells_prompts_apart() -> None:
    base = Prompts()
    assert named(base, 7) == ("seed 7", "seed 7 ids 0 0")
    keys = {
        named(prompts, 7)[1]
        for prompts in (
            base, replace(base, chat=True), replace(base, text=True),
            replace(base, repetitive=True),
            replace(base, shared_prefix_tokens=64, shared_prefix_share=1.0),
        )
    }  # fmt: skip
    assert len(keys) == 5
    longer = replace(base, prompt_tokens=(512, 512))
    assert named(longer, 7) == named(base, 7)  # it begins with the same tokens
    dataset = replace(base, dataset="/data/ds.jsonl")
    assert named(dataset, 1) == named(dataset, 2) == (
        "this dataset (ds.jsonl)", "dataset /data/ds.jsonl",
    )  # fmt: skip
