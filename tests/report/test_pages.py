"""What a reader finds in a report, in each format."""

from __future__ import annotations

import csv
import io
import json
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from llmtop import LlmtopError, UsageError
from llmtop.report.runs import Run, kind_of, read_result
from llmtop.report.write import write_report
from tests.report.results import (
    HOSTILE,
    comparison,
    hold,
    latency,
    level,
    load,
    saturation,
    setup,
    tuning,
)

NOW = 1795326110.0
VOID = {"meta", "br", "link"}


class Page(HTMLParser):
    """A page's elements: their text in order, and whether every element is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((self.open[-1] if self.open else "", data.strip()))

    def all(self, tag: str) -> list[str]:
        return [text for where, text in self.texts if where == tag]


def written(folder: Path, name: str, *found: dict[str, Any]) -> str:
    runs = []
    for place, one in enumerate(found):
        kind = kind_of(one)
        assert kind is not None
        runs.append(Run(kind, f"run {place}", one))
    write_report(str(folder / name), runs, NOW)
    return (folder / name).read_text()


@pytest.mark.parametrize("found", [saturation(), comparison(), load(), tuning(), hold()])
def test_a_page_needs_no_network_and_no_script(tmp_path: Path, found: dict[str, Any]) -> None:
    text = written(tmp_path, "r.html", found)
    page = Page(text)
    assert page.open == []
    outside = {"src", "srcset", "href", "xlink:href", "data", "action"}
    for tag, attributes in page.found:
        assert tag not in ("script", "iframe", "object", "img", "link")
        for name, value in attributes.items():
            assert not name.startswith("on")
            assert name not in outside or (value or "").startswith("#")
    assert "@import" not in text and "url(" not in text


def test_the_answer_comes_first_and_headings_are_in_order(tmp_path: Path) -> None:
    page = Page(written(tmp_path, "r.html", saturation()))
    assert page.texts[2:4] == [
        ("h1", "Saturation of vllm"),
        ("p", "Holds TTFT <= 500ms for 95% of requests up to 64 streams"),
    ]
    headings = [tag for tag, _ in page.found if tag in ("h1", "h2", "h3")]
    assert headings[0] == "h1" and set(headings[1:]) == {"h2"}


def test_every_drawing_has_a_description_and_the_numbers_stand_in_tables(tmp_path: Path) -> None:
    page = Page(written(tmp_path, "r.html", saturation()))
    drawings = [attributes for tag, attributes in page.found if tag == "svg"]
    assert len(drawings) == 2
    for attributes in drawings:
        assert attributes["role"] == "img" and len(attributes["aria-label"] or "") > 40
    assert "knee lies at 64 streams" in (drawings[0]["aria-label"] or "")
    assert "4,000 ± 2%" in page.all("td")
    assert len(page.all("caption")) == sum(tag == "table" for tag, _ in page.found)


def test_setup_names_hardware_engine_options_and_the_command(tmp_path: Path) -> None:
    texts = Page(written(tmp_path, "r.html", saturation())).all("dd")
    assert "vllm 0.32.0" in texts
    assert "max_num_seqs 64, enable_prefix_caching off" in texts
    assert "1 x NVIDIA H200 140.4 GiB, driver 570.86" in texts
    assert "llmtop saturate vllm" in written(tmp_path, "r.md", saturation())


def test_a_result_without_setup_says_so(tmp_path: Path) -> None:
    found = saturation()
    del found["setup"]
    assert "not recorded" in Page(written(tmp_path, "r.html", found)).all("dd")


def test_a_rejected_level_is_named_and_does_not_count(tmp_path: Path) -> None:
    page = Page(written(tmp_path, "r.html", saturation()))
    reason = "128 streams: not valid, because the client was short of a core"
    assert reason in page.all("p")
    worst = saturation(levels=[level(8, 700.0, 0.1), level(16, 9000.0, 0.1, "client-bound")])
    captions = Page(written(tmp_path, "s.html", worst)).all("caption")
    assert "Latencies at 8 streams, the highest throughput" in captions


def test_a_client_that_was_the_limit_is_a_caution(tmp_path: Path) -> None:
    found = saturation(client_limited=True, client_limit_streams=96, complete=False)
    caution = "This client was the limit before the engine was, at 96 streams."
    assert caution in written(tmp_path, "r.html", found)
    assert "not measured on real" not in written(tmp_path, "r.html", saturation())
    simulated = "Nothing here was measured on real hardware."
    assert simulated in written(tmp_path, "r.html", saturation(simulated=True))


def test_a_comparison_shows_change_interval_noise_and_pairs(tmp_path: Path) -> None:
    cells = Page(written(tmp_path, "r.html", comparison())).all("td")
    for text in ("+12.0 %", "+5.0 % to +20.0 %", "± 3%", "better"):
        assert text in cells
    assert "1 pairs do not count" in written(tmp_path, "r.md", comparison()).replace("\\", "")


def test_a_load_shows_outcomes_errors_and_the_cached_share(tmp_path: Path) -> None:
    page = Page(written(tmp_path, "r.html", load()))
    assert {"590 answered", "3 failed", "25%"} <= set(page.all("dd"))
    assert "HTTP 503" in page.all("td")
    many = load(requests={"ok": 48, "failed": 400, "cut": 0})
    assert "More than half of the requests failed." in written(tmp_path, "s.html", many)


def test_a_tune_shows_each_setting_with_its_interval_and_how_to_set_the_best(
    tmp_path: Path,
) -> None:
    best = {"max_num_seqs": 64, "max_queued_requests": 1600}
    tried = tuning()["tried"]
    tried[1]["settings"] = best
    page = Page(written(tmp_path, "r.html", tuning(settings=best, tried=tried)))
    assert page.texts[2:4] == [
        ("h1", "Tuning of vllm"),
        ("p", "vllm: max_num_seqs 64 serves 1.50 times (1.21 to 1.86) as many requests"),
    ]
    assert {"1.50 times (1.21 to 1.86), 3 pairs", "9 in 1m20s"} <= set(page.all("dd"))
    cells = page.all("td")
    for text in ("17.3 to 42.7", "40% to 50%", "30.0", "own", "best"):
        assert text in cells
    code = page.all("code")
    assert "llmtop set vllm max_num_seqs=64 max_queued_requests=1600" in code
    assert "llmtop run vllm org/model -- --max-num-seqs 64" in code
    assert "Some runs broke the limits at once, or got no request. They count as 0." in page.all(
        "li"
    )
    drawn = [attributes["aria-label"] for tag, attributes in page.found if tag == "svg"]
    assert len(drawn) == 1 and "max_num_seqs 64, max_queued_requests 1,600: 45.0" in str(drawn[0])


def test_a_tune_that_decided_nothing_names_no_command(tmp_path: Path) -> None:
    unsure = tuning(verdict="cannot tell", goodput_ratio=None, restored=False, stopped=True)
    text = written(tmp_path, "r.md", unsure).replace("\\", "")
    assert "llmtop set" not in text and "No setting is known to be better" in text
    assert "The engine's own settings were not restored." in text
    assert "not measured in pairs" in text


def test_a_hold_shows_its_actions_with_reasons_and_what_was_refused(tmp_path: Path) -> None:
    page = Page(written(tmp_path, "r.html", hold()))
    assert page.texts[2] == ("h1", "Held SLO on vllm")
    assert {"1,280 (20%)", "41 (0.8%)", "41.4"} <= set(page.all("dd"))
    assert {"a token takes 46 ms with 258 streams", "none", "16"} <= set(page.all("td"))
    cautions = page.all("li")
    assert "1,280 requests were refused. Their clients had to retry." in cautions
    assert "For a time no setting kept the limits." in cautions
    drawn = [str(attributes["aria-label"]) for tag, attributes in page.found if tag == "svg"]
    assert [one.split(" over time")[0] for one in drawn] == ["max_num_seqs", "max_queued_requests"]
    assert "lowest 16, highest 16. A gap means no limit." in drawn[1]


def test_a_hold_that_did_nothing_has_no_chart(tmp_path: Path) -> None:
    quiet = hold(actions=[], refused=0, restored=False, not_restored={"max_num_seqs": 64})
    text = written(tmp_path, "r.md", quiet).replace("\\", "")
    assert "over time" not in text and "were refused" not in text
    assert "own settings were not restored: max_num_seqs 64." in text


def test_what_cannot_be_compared_is_said_and_nothing_is_averaged(tmp_path: Path) -> None:
    other = saturation(setup=setup(prompt_tokens=2048))
    text = written(tmp_path, "r.md", saturation(), other).replace("\\", "")
    assert "Not comparable, different prompt lengths: run 0: 512; run 1: 2,048." in text
    assert text.count("4,200") >= 2
    assert "run 1: 1 of 4 levels do not count (128 streams)." in text
    same = written(tmp_path, "s.md", saturation(), saturation()).replace("\\", "")
    assert "Not comparable" not in same


def test_searches_side_by_side_share_one_chart(tmp_path: Path) -> None:
    page = Page(written(tmp_path, "r.html", saturation(), saturation()))
    labels = [attributes.get("aria-label") or "" for tag, attributes in page.found if tag == "svg"]
    assert labels[0].startswith("Throughput against streams, all runs")


@pytest.mark.parametrize("kind", [saturation, comparison, load, tuning, hold])
def test_hostile_text_stays_text(tmp_path: Path, kind: Any) -> None:
    def spoilt(value: Any) -> Any:
        if isinstance(value, dict):
            return {
                name: spoilt(one) if name not in ("kind", "measure", "order", "verdict") else one
                for name, one in value.items()
            }
        if isinstance(value, list):
            return [spoilt(one) for one in value]
        return HOSTILE if isinstance(value, str) else value

    found = {**spoilt(kind()), "errors": {HOSTILE: 3}}
    page = Page(written(tmp_path, "r.html", found))
    assert page.open == [] and not any(tag == "script" for tag, _ in page.found)
    assert "\x1b" not in written(tmp_path, "r.html", found)
    fences = written(tmp_path, "r.md", found).split("```")
    assert len(fences) % 2 == 1 and "<script>" not in "".join(fences[::2])
    rows = list(csv.reader(io.StringIO(written(tmp_path, "r.csv", found))))
    assert not any(cell.startswith(("=", "@")) for row in rows for cell in row)
    assert "\\u001b" not in written(tmp_path, "r.json", found)


@pytest.mark.parametrize(
    "broken",
    [
        {"levels": "none", "answers": 3, "knee": [], "slo": 1, "setup": "x", "summary": None},
        {"levels": [None, 3, {}], "answers": [{}], "knee": {}, "setup": {"gpus": [1, {}]}},
        {"levels": [{"streams": 1e400, "output_tokens_per_s": float("nan")}], "setup": {}},
        {"levels": [{"streams": True, "ttft_s": {"p95": "x"}}], "setup": {"load": []}},
    ],
)
def test_fields_of_a_wrong_type_are_unknown(tmp_path: Path, broken: dict[str, Any]) -> None:
    page = Page(written(tmp_path, "r.html", saturation(**broken)))
    assert page.open == []
    assert not any("nan" in text.lower().split() for _, text in page.texts)


@pytest.mark.parametrize("kind", [tuning, hold])
@pytest.mark.parametrize("wrong", [None, "x", 3, [], [None, 3, {}], {"x": []}, float("nan"), 1e400])
def test_any_field_of_a_tune_or_hold_may_be_of_a_wrong_type(
    tmp_path: Path, kind: Any, wrong: Any
) -> None:
    for name in kind():
        if name != "kind":
            assert "nan" not in written(tmp_path, "r.md", kind(**{name: wrong})).lower().split()
    everything = {name: wrong for name in kind() if name != "kind"}
    assert Page(written(tmp_path, "r.html", kind(**everything))).open == []


def test_a_spreadsheet_gets_numbers_and_no_formula(tmp_path: Path) -> None:
    found = load(errors={"=HYPERLINK(1)": 2, "-12 %": 1})
    rows = list(csv.reader(io.StringIO(written(tmp_path, "r.csv", found))))
    assert ["2 x", "'=HYPERLINK(1)"] in rows and ["1 x", "-12 %"] in rows
    assert ["TTFT", "40ms", "70ms", "84ms", "44ms", "10ms", "100"] in rows


def test_json_holds_the_sentences_tables_and_points(tmp_path: Path) -> None:
    found = json.loads(written(tmp_path, "r.json", saturation()))
    assert found["kind"] == "report" and found["answer"].startswith("Holds TTFT")
    chart = found["sections"][0]["charts"][0]
    assert chart["series"][0]["points"][0] == [8.0, 700.0]


def test_unusable_files_cost_one_clear_line(tmp_path: Path) -> None:
    for name, data, words in (
        ("a.json", b"{", "is not JSON"),
        ("b.json", b"[]", "holds no result"),
        ("c.json", b'{"kind": "novel"}', "holds no result"),
        ("d.json", b"[" * 100_000, "is not JSON"),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(LlmtopError, match=words):
            read_result(tmp_path / name)
    with pytest.raises(LlmtopError, match="cannot be read"):
        read_result(tmp_path / "none.json")
    for name in ("r.pdf", "r", "none/r.html"):
        with pytest.raises(UsageError):
            write_report(str(tmp_path / name), [Run("load", "x", load())], NOW)


def test_unknown_percentiles_are_shown_as_such(tmp_path: Path) -> None:
    unknown = {**latency(0.1, 0.2), "p95": None, "p99": None}
    rows = list(csv.reader(io.StringIO(written(tmp_path, "r.csv", load(ttft_s=unknown)))))
    ttft = next(row for row in rows if row[:1] == ["TTFT"])
    assert ttft[2:4] == ["--", "--"]


def test_drawing_leaves_no_import_hook_behind(tmp_path: Path) -> None:
    written(tmp_path, "r.html", saturation())
    assert all(hasattr(finder, "find_spec") for finder in sys.meta_path)
