"""Exposition text: a real one whole, and everything that may come instead of one."""

from __future__ import annotations

import contextlib
import gzip
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmtop.engines.metrics import exposition
from llmtop.engines.metrics.exposition import MAX_TEXT, Exposition, Parser, ScrapeError
from tests.folders import TESTS
from tests.metric_page import parse

DATA = TESTS / "data" / "metrics"
VLLM = ("vllm:",)


@pytest.fixture(scope="module")
def real() -> str:
    return gzip.decompress((DATA / "vllm_spec.txt.gz").read_bytes()).decode()


def test_a_real_text_is_found_by_sample_name(real: str) -> None:
    text = parse(real, VLLM)
    assert text.value("vllm:generation_tokens_total") == 41200
    assert text.value("vllm:request_success_total") == 206
    assert text.value("vllm:request_success_total", finished_reason="length") == 206
    assert text.value("vllm:request_success_total", finished_reason="abort") == 0
    assert text.value("process_start_time_seconds") == 1.79532704516e09
    ((config, one),) = text.series("vllm:cache_config_info")
    assert (config["kv_cache_size_tokens"], config["engine"], one) == ("25600", "0", 1.0)
    positions = text.series("vllm:spec_decode_num_accepted_tokens_per_pos_total")
    assert {labels["position"]: value for labels, value in positions} == {
        "0": 8523,
        "1": 7419,
        "2": 5254,
        "3": 5081,
    }


def test_what_is_not_asked_for_is_not_there(real: str) -> None:
    text = parse(real, VLLM)
    assert text.value("python_info") is None
    assert text.series("http_requests_total") == ()
    assert text.value("vllm:generation_tokens_created") is None
    assert text.value("vllm:request_success_total", finished_reason="meteor") is None
    assert parse(real, ("sglang:",)).value("vllm:generation_tokens_total") is None


def test_the_same_as_prometheus_client_reads_from_the_whole_text(real: str) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    text = parse(real, VLLM)
    checked = 0
    for family in text_string_to_metric_families(real):
        for sample in family.samples:
            if sample.name.startswith("vllm:") and not sample.name.endswith("_created"):
                assert text.value(sample.name, **sample.labels) == sample.value
                checked += 1
    assert checked == len(text) - 1 == 337


def test_a_parser_reads_each_text_for_itself() -> None:
    parser = Parser(VLLM)
    first = parser.parse('vllm:a{x="1"} 1\nvllm:b 2\n')
    second = parser.parse('vllm:a{x="1"} 3\nvllm:a{x="2"} 10\n')
    assert (first.value("vllm:a"), first.value("vllm:b")) == (1, 2)
    assert (second.value("vllm:a"), second.value("vllm:b")) == (13, None)
    assert second.value("vllm:a", x="2") == 10
    assert parser.parse('vllm:a{x="1"} 3 1795327045000\n').value("vllm:a") == 3


def test_while_no_line_of_the_engine_changes_nothing_is_taken_apart_again() -> None:
    parser = Parser(VLLM)
    first = parser.parse('vllm:a{x="1"} 1\npython_gc 5\n')
    assert parser.parse('vllm:a{x="1"} 1\npython_gc 6\n') is first
    changed = parser.parse('vllm:a{x="1"} 2\npython_gc 6\n')
    assert changed.value("vllm:a") == 2
    assert parser.parse("\n").value("vllm:a") is None
    assert parser.parse('vllm:a{x="1"} 2\n').value("vllm:a") == 2


LINES = st.sampled_from(
    [
        "vllm:a 1",
        "vllm:a 2",
        "vllm:b 1",
        "x 1",
        "x 2",
        "y vllm:a 1",
        "# HELP vllm:a x",
        "",
        "\r",
        "#",
    ]
)


@given(st.lists(st.lists(LINES, max_size=6).map("\n".join), max_size=8))
def test_a_parser_that_has_seen_a_text_reads_the_next_like_a_new_one(texts: list[str]) -> None:
    parser = Parser(VLLM)

    def told(parse: Callable[[str], Exposition], text: str) -> list[object] | str:
        try:
            found = parse(text)
        except ScrapeError as error:
            return error.message
        return [found.value(name) for name in ("vllm:a", "vllm:b")]

    ended = [f"{text}\n" for text in texts]
    for text in [one for pair in zip(texts, ended, ended, ended, strict=True) for one in pair]:
        assert told(parser.parse, text) == told(Parser(VLLM).parse, text)


def test_an_idle_text_in_which_only_others_lines_change_is_not_taken_apart() -> None:
    own = "# HELP vllm:a x\nvllm:a 1\nvllm:b 2\n"
    parser = Parser(VLLM)
    first = parser.parse(f"cpu 1\n{own}http 7\n")
    assert parser.parse(f"cpu 2\n{own}http 8\n") is first
    assert parser.parse(f"cpu 33\n{own}http 9\nhttps 1\n") is first
    assert parser.parse(f"cpu 4\n{own}http 9\nvllm:c 3\n").value("vllm:c") == 3
    assert parser.parse(f"cpu 4\nvllm:a 5\n{own}").value("vllm:a") == 5


def test_a_parser_keeps_nothing_of_texts_gone_by() -> None:
    import tracemalloc

    parser = Parser(VLLM)
    parser.parse('vllm:a{x="warm"} 1')
    tracemalloc.start()
    try:
        parser.parse("\n".join(f'vllm:a{{x="{n}"}} 1' for n in range(2000)))
        full = tracemalloc.get_traced_memory()[0]
        parser.parse('vllm:a{x="last"} 1')
        assert tracemalloc.get_traced_memory()[0] < full / 5
    finally:
        tracemalloc.stop()


def test_labels_may_hold_anything() -> None:
    line = r'vllm:a{model="a } \"b\" \\ {x=\"1\",} \n €",engine="0"} 7'
    ((labels, value),) = parse(line + "\n", VLLM).series("vllm:a")
    assert labels == {"model": 'a } "b" \\ {x="1",} \n €', "engine": "0"}
    assert value == 7


def test_bad_lines_are_skipped_and_good_ones_read() -> None:
    text = "\n".join(
        [
            "vllm:good 1",
            "vllm:",
            "vllm:no_value",
            "vllm:no_number one",
            'vllm:open{x="1 5',
            "vllm:unquoted{x=1} 5",
            'vllm:twice{x="1",x="2"} 5',
            "vllm:{} 5",
            "}{vllm:x} 5",
            "vllm:nothing NaN",
            "vllm:endless +Inf",
            "vllm:overflow 1e308",
            'vllm:long{x="' + "y" * 10_000 + '"} 5',
            "vllm:\x1b[2J 5",
            'vllm:also{x="1"} 2\r',
            "vllm:more\x85 vllm:x 1",
        ]
    )
    found = parse(text, VLLM)
    assert found.value("vllm:good") == 1
    assert found.value("vllm:also") == 2
    for name in (
        "no_value",
        "no_number",
        "open",
        "unquoted",
        "twice",
        "nothing",
        "endless",
        "long",
    ):
        assert found.value(f"vllm:{name}") is None, name


def test_of_two_lines_for_one_series_the_first_counts() -> None:
    assert parse('vllm:a{x="1"} 1\nvllm:a{x="1"} 2\nvllm:a{x="2"} 4\n', VLLM).value("vllm:a") == 5


@pytest.mark.parametrize(
    "text", ["<!DOCTYPE html><html>vllm:a 1</html>", '{"detail": "Not Found"}', "[]", "vllm", "\0"]
)
def test_something_else_than_metrics_is_named(text: str) -> None:
    with pytest.raises(ScrapeError, match="not metrics text") as caught:
        parse(text, VLLM)
    assert caught.value.hint


@pytest.mark.parametrize("text", ["", "\n", "# HELP x y\n# TYPE x gauge\nx 1\n"])
def test_an_engine_without_numbers_yet_is_no_error(text: str) -> None:
    assert len(parse(text, VLLM)) == 0


def test_there_are_bounds() -> None:
    with pytest.raises(ScrapeError, match="larger than 8 MiB"):
        parse("x" * (MAX_TEXT + 1), VLLM)
    with pytest.raises(ScrapeError, match="more than 20,000 series"):
        parse("\n".join(f"vllm:a{n} 1" for n in range(20_001)), VLLM)
    with pytest.raises(ScrapeError, match="more than 20,000 series"):
        parse("\n".join(f"vllm:a{{{n} 1" for n in range(100_000)), VLLM)
    with pytest.raises(ScrapeError, match="endless"):
        parse("\n".join(f"vllm:a{n:03000d} 1" for n in range(400)), VLLM)
    with pytest.raises(ScrapeError, match="lines are longer than 4,096 characters") as caught:
        parse(f'vllm:a{{model_name="{"x" * 10_000}"}} 1', VLLM)
    assert "model name" in caught.value.hint


def many(word: str, series: int) -> str:
    return "".join(f'vllm:a{{x="{word}{n:080d}"}} 1\n' for n in range(series))


def test_series_that_are_new_in_every_text_are_not_all_taken_apart_every_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken = [0]

    def counting(head: str, written: object) -> object:
        taken[0] += 1
        return "vllm:a", {}

    parser = Parser(VLLM)
    parser.parse(many("first", 8_000))
    monkeypatch.setattr(exposition, "_take_apart", counting)
    for word in ("second", "third", "fourth"):
        taken[0] = 0
        with pytest.raises(ScrapeError, match="endless"):
            parser.parse(many(word, 8_000))
    assert taken[0] < 1_500


def test_an_engine_with_as_many_other_series_after_a_restart_is_read_again_soon() -> None:
    parser = Parser(VLLM)
    parser.parse(many("before", 7_000))
    for _ in range(6):
        with contextlib.suppress(ScrapeError):
            found = parser.parse(many("after", 7_000))
            break
    assert found.value("vllm:a") == 7_000


@settings(deadline=None)
@given(st.text(alphabet='vllm:{}="\\,x1 \n\t.e+-NaIf#', max_size=200))
def test_no_text_breaks_it(text: str) -> None:
    try:
        found = parse("vllm:a 1\nvllm:" + text, VLLM)
    except ScrapeError:
        raise AssertionError("one line of it is sound") from None
    assert found.value("vllm:a") is not None


LABEL = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@settings(deadline=None)
@given(st.dictionaries(LABEL, st.floats(-1e9, 1e9), min_size=1, max_size=5))
def test_what_is_written_is_read_back(series: dict[str, float]) -> None:
    def escape(value: str) -> str:
        return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

    text = "".join(f'vllm:a{{m="{escape(label)}"}} {value!r}\n' for label, value in series.items())
    parser = Parser(VLLM)
    for _ in range(2):  # the second time from memory
        found = {labels["m"]: value for labels, value in parser.parse(text).series("vllm:a")}
        assert found == series


@settings(deadline=None)
@given(st.lists(st.text(alphabet='{},="\\le_xm15+Inf ', max_size=40), min_size=2, max_size=6))
def test_a_line_is_read_as_if_it_were_alone(labels: list[str]) -> None:
    lines = list(dict.fromkeys(f"vllm:a{written} 1" for written in labels))

    def read(text: str) -> list[tuple[dict[str, str], float]]:
        found = parse("# HELP vllm:a\n" + text, VLLM).series("vllm:a")
        return [(dict(labels), value) for labels, value in found]

    together = read("\n".join(lines))
    assert together == [one for line in lines for one in read(line)]


def test_a_bound_is_one_only_where_it_stands_as_a_label() -> None:
    lines = [
        r'vllm:a_bucket{x="{le=",z="q",le="5"} 1',
        r'vllm:a_bucket{x="{le=",z="q",le="7"} 2',
        r'vllm:a_bucket{m="\",le=\"5",le="+Inf"} 3',
        r'vllm:a_bucket{m="\",le=\"5",le="0.5"} 4',
        r'vllm:b_bucket{m="\",le=\"7",le="0.5"} 5',
        r'vllm:b_bucket{m="\",le=\"7",_} 6',  # malformed: it is skipped
    ]
    text = parse("\n".join(lines), VLLM)
    first, second, third, fourth = (labels for labels, _ in text.series("vllm:a_bucket"))
    assert (first["le"], second["le"], first["x"], second["z"]) == ("5", "7", "{le=", "q")
    assert (third["le"], fourth["le"], third["m"]) == ("+Inf", "0.5", '",le="5')
    ((fifth, value),) = text.series("vllm:b_bucket")
    assert (fifth["m"], fifth["le"], value) == ('",le="7', "0.5", 5)


@pytest.mark.parametrize(
    "text",
    [
        "llamacpp:prompt_tokens_total 12\nllamacpp:requests_processing 1\n",
        'tgi_request_count{method="generate"} 3\n# TYPE tgi_queue_size gauge\ntgi_queue_size 0\n',
    ],
)
def test_the_metrics_of_another_engine_are_called_metrics(text: str) -> None:
    with pytest.raises(ScrapeError, match="an engine that llmtop does not know") as caught:
        parse(text, VLLM)
    assert "vLLM, SGLang and TensorRT-LLM" in caught.value.hint


PIECES = [
    *("name", "m:x_total", "{", "}", ",", 'a="b"', 'le="0.5"', 'a="b,c}"', '__name__="z"', " "),
    *('"', "=", '\\"', 'x="é"', "1a", "a ='b'", "{}", "#"),
]


@given(st.lists(st.sampled_from(PIECES), min_size=1, max_size=8).map("".join))
@settings(max_examples=400, deadline=None)
def test_a_plain_series_is_read_as_the_reference_parser_reads_it(head: str) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    try:
        (family,) = text_string_to_metric_families(f"{head} 7\n")
        (sample,) = family.samples
        expected = [(dict(sample.labels), 7.0)] if sample.value == 7 else []
    except (ValueError, IndexError, KeyError):
        expected, sample = [], None
    try:
        found = parse(f"{head} 7\nm_other 1\n", ("m", "name"))
    except ScrapeError:
        return
    if sample is None or not sample.name.startswith(("m", "name")) or not expected:
        return
    if head.startswith(sample.name):  # in the newer syntax the name may be among the labels
        assert [(dict(labels), value) for labels, value in found.series(sample.name)] == expected
