"""The SGLang adapter on texts that real engines wrote."""

from __future__ import annotations

import gzip
import json
import math
import re
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import pytest

from llmtop import UsageError
from llmtop.engines.core.options import Applies
from llmtop.engines.core.records import LaunchSpec
from llmtop.engines.core.samples import Counter, Latency, Reading
from llmtop.engines.metrics.exposition import Parser
from llmtop.engines.metrics.window import Window
from llmtop.engines.sglang.adapter import ADAPTER
from llmtop.engines.tuning.argv_editor import with_options
from tests.folders import TESTS
from tests.metric_page import parse

DATA = TESTS / "data" / "sglang"


def recorded(name: str) -> str:
    return gzip.decompress((DATA / f"{name}.gz").read_bytes()).decode()


def rows(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(recorded(f"{name}.json"))
    return found


def read(text: str, elapsed: float = 10.0) -> Reading:
    return ADAPTER.read(parse(text, ADAPTER.prefixes), 1000.0, elapsed)


def spec(*args: str, **more: object) -> LaunchSpec:
    given: dict[str, object] = {
        "kind": "sglang",
        "name": "a",
        "model": "org/model",
        "host": "127.0.0.1",
        "port": 30001,
        "args": args,
        **more,
    }
    return LaunchSpec(**given)  # type: ignore[arg-type]


class TestReading:
    def test_an_engine_under_load_on_a_gpu(self) -> None:
        reading = read(recorded("metrics_loaded_0.5.16.txt"))
        assert (reading.time, reading.elapsed) == (1000.0, 10.0)
        assert reading.model == "llama-8b-dummy"
        assert (reading.running, reading.waiting) == (370, 116)
        assert (reading.kv_tokens_used, reading.kv_tokens_total) == (212_370, 906_067)
        assert reading.kv_tokens_evictable == 690_080
        assert reading.kv_usage == pytest.approx(212_370 / 906_067)
        # No speculation at launch: that is not known, which is not zero.
        assert (reading.spec_acceptance, reading.spec_accepted_length) == (None, None)
        # 0.5.16 tells no TPOT; the others are there.
        assert set(reading.histograms) == set(Latency) - {Latency.TPOT}
        for histogram in reading.histograms.values():
            assert list(histogram.counts) == sorted(histogram.counts)
            assert histogram.bounds[-1] == math.inf
        assert reading.histograms[Latency.TTFT].counts[-1] == 1940

    def test_counters_of_an_idle_engine(self) -> None:
        reading = read(recorded("metrics_idle_0.5.21.txt"))
        assert reading.counters == {
            Counter.OUTPUT_TOKENS: 237,
            Counter.PROMPT_TOKENS: 94,
            Counter.PREFIX_QUERIES: 94,
            Counter.PREFIX_HITS: 1,
            Counter.PREEMPTIONS: 0,  # there is no such series before the first
            Counter.REQUESTS_OK: 3,
            Counter.REQUESTS_FAILED: 0,
        }
        assert (reading.running, reading.waiting, reading.kv_usage) == (0, 0, 0.0)
        assert (reading.kv_tokens_used, reading.kv_tokens_evictable) == (0, 194)

    def test_retractions_are_preemptions(self) -> None:
        base = recorded("metrics_idle_0.5.21.txt")
        ranks = 'model_name="tiny",moe_ep_rank="0",pp_rank="0",tp_rank="0"'
        more = f'sglang:num_retracted_requests_total{{engine_type="unified",{ranks}}} 3.0\n'
        assert read(base + more).counters[Counter.PREEMPTIONS] == 3

    def test_streamed_requests_and_others_are_laid_together(self) -> None:
        base = recorded("metrics_idle_0.5.21.txt")
        streamed = "".join(
            f"{line}\n".replace('is_streaming="false"', 'is_streaming="true"')
            for line in base.splitlines()
            if 'is_streaming="false"' in line
        )
        alone, both = read(base), read(base + streamed)
        assert both.counters[Counter.REQUESTS_OK] == 6
        one, two = alone.histograms[Latency.TTFT], both.histograms[Latency.TTFT]
        assert two.counts == tuple(2 * count for count in one.counts)
        assert two.total == pytest.approx(2 * one.total)

    def test_data_parallel_ranks_are_laid_together_and_others_are_not_counted_twice(self) -> None:
        base = recorded("metrics_loaded_0.5.16.txt")
        lines = [line for line in base.splitlines() if line.startswith("sglang:")]
        by_rank = [line for line in lines if 'tp_rank="0"' in line]
        rest = [line for line in lines if 'tp_rank="0"' not in line]

        def rank(dp: int, tp: int) -> list[str]:
            return [
                line.replace('tp_rank="0"', f'dp_rank="{dp}",tp_rank="{tp}"') for line in by_rank
            ]

        # Two data-parallel ranks of two tensor-parallel ones, as --enable-dp-attention counts them.
        every = [*rest, *rank(0, 0), *rank(0, 1), *rank(1, 2), *rank(1, 3)]
        one, all_of_them = read(base), read("\n".join(every))
        assert (all_of_them.running, all_of_them.waiting) == (740, 232)
        assert all_of_them.kv_tokens_total == 2 * 906_067
        assert all_of_them.kv_usage == pytest.approx(one.kv_usage)
        tokens = Counter.OUTPUT_TOKENS
        assert all_of_them.counters[tokens] == 2 * one.counters[tokens]
        queue = Latency.QUEUE
        assert all_of_them.histograms[queue].counts[-1] == 2 * one.histograms[queue].counts[-1]
        # The front end is one.
        assert all_of_them.counters[Counter.REQUESTS_OK] == one.counters[Counter.REQUESTS_OK]

    def test_with_priorities_the_whole_counts_and_not_its_parts(self) -> None:
        labels = 'model_name="m",tp_rank="0",pp_rank="0"'
        text = (
            f'sglang:num_running_reqs{{{labels},priority=""}} 5\n'
            f'sglang:num_running_reqs{{{labels},priority="1"}} 3\n'
            f'sglang:num_running_reqs{{{labels},priority="2"}} 2\n'
        )
        assert read(text).running == 5

    def test_the_fuller_of_several_pools_counts(self) -> None:
        labels = '{model_name="m",tp_rank="0",pp_rank="0"}'
        text = (
            f"sglang:num_running_reqs{labels} 5\nsglang:token_usage{labels} 0.9\n"
            f"sglang:kv_used_tokens{labels} 300\nsglang:max_total_num_tokens{labels} 1000\n"
        )
        assert read(text).kv_usage == 0.9
        assert read(text.replace("0.9", "0.31")).kv_usage == 0.3  # the same, but for its rounding

    def test_speculation_while_it_runs_and_not_what_it_was(self) -> None:
        trace = rows("ngram_0.5.23")
        readings = [read(row["text"]) for row in trace]
        drafting = [reading for reading in readings if reading.running]
        assert len(drafting) > 5
        for reading in drafting:
            assert reading.spec_acceptance is not None and reading.spec_accepted_length is not None
            assert 0 < reading.spec_acceptance <= 1
            # Three of the four tokens of a verification are drafted, the first is certain.
            assert reading.spec_accepted_length == pytest.approx(1 + 3 * reading.spec_acceptance)
        idle = [reading for reading in readings if not reading.running]
        assert idle and all(reading.spec_acceptance is None for reading in idle)

    def test_nothing_and_nonsense_are_not_known(self) -> None:
        assert read("") == Reading(time=1000.0, elapsed=10.0)
        wild = read(
            'sglang:num_running_reqs{tp_rank="0"} NaN\nsglang:token_usage{tp_rank="0"} +Inf\n'
            'sglang:num_running_reqs{tp_rank="²"} NaN\n'
            'sglang:time_to_first_token_seconds_bucket{le="often"} 1\n'
            "sglang:time_to_first_token_seconds_sum 1\n"
        )
        assert wild == Reading(time=1000.0, elapsed=10.0)


class TestWindow:
    def test_a_ramp_adds_up(self) -> None:
        """SGLang 0.5.21 on a CPU, 1 to 16 streams against a limit of 8, with its own counters."""
        trace, window, parser = rows("ramp_0.5.21"), Window(seconds=1000.0), Parser(("sglang:",))
        began, peak = trace[0]["t"], 0
        for row in trace:
            elapsed = row["t"] - began
            sample = window.add(ADAPTER.read(parser.parse(row["text"]), row["t"], elapsed))
            assert not sample.restarted
            assert sample.kv_tokens_used is not None and sample.kv_tokens_evictable is not None
            assert sample.kv_tokens_used + sample.kv_tokens_evictable <= 8192
            peak = max(peak, sample.waiting or 0)
        assert peak == 8  # the limit of 8 held, the other 8 of 16 waited
        whole = Window(seconds=1000.0, rate_seconds=1000.0)
        for row in (trace[0], trace[-1]):
            reading = ADAPTER.read(parser.parse(row["text"]), row["t"], row["t"] - began)
            sample = whole.add(reading)
        finished = trace[-1]["done"] - trace[0]["done"]
        assert sample.requests_per_s is not None and sample.output_tokens_per_s is not None
        assert sample.requests_per_s * sample.window_s == pytest.approx(finished)
        # 300 tokens each; SGLang's own count is of decode steps and may be a token off a request.
        tokens = sample.output_tokens_per_s * sample.window_s
        assert tokens == pytest.approx(300 * finished, abs=finished)
        assert sample.latencies[Latency.TTFT].n == finished
        assert sample.prefix_hit_rate == pytest.approx(87 / (11375 + 87 - 15), abs=1e-3)
        assert sample.preemptions == 0

    def test_gauges_of_speculation_reach_the_sample(self) -> None:
        row = next(r for r in rows("ngram_0.5.23") if read(r["text"]).running)
        reading = read(row["text"])
        sample = Window().add(reading)
        assert sample.spec_acceptance == reading.spec_acceptance
        assert sample.spec_accepted_length == reading.spec_accepted_length
        assert sample.kv_tokens_used == reading.kv_tokens_used


class TestCommand:
    def test_serve_metrics_and_the_operators_flags_last(self) -> None:
        assert ADAPTER.command(spec("--max-running-requests", "64")) == (
            *("sglang", "serve", "--model-path", "org/model"),
            *("--host", "127.0.0.1", "--port", "30001"),
            *("--enable-metrics", "--decode-log-interval", "10"),
            *("--uvicorn-access-log-exclude-prefixes", "/metrics", "/health", "/server_info"),
            *("--max-running-requests", "64"),
        )

    def test_a_path_and_a_python_in_place_of_the_program(self) -> None:
        by_path = ADAPTER.command(spec(program=("/opt/s/bin/sglang",)))
        assert by_path[:3] == ("/opt/s/bin/sglang", "serve", "--model-path")
        by_python = ADAPTER.command(spec(program=("/opt/s/bin/python", "-m", ADAPTER.module)))
        assert by_python[1:4] == ("-m", "sglang.launch_server", "--model-path")

    @pytest.mark.parametrize(
        "args",
        [
            ("--decode-log-interval", "40"),
            ("--decode-log-interval=40",),
            ("--enable-metrics",),
            ("--uvicorn-access-log-exclude-prefixes", "/x"),
        ],
    )
    def test_what_the_operator_gave_is_not_added(self, args: tuple[str, ...]) -> None:
        command = ADAPTER.command(spec(*args))
        assert command[-len(args) :] == args
        assert sum(word.startswith(args[0].partition("=")[0]) for word in command) == 1

    @pytest.mark.parametrize(
        "args", [("--port", "9"), ("--host=0.0.0.0",), ("--model", "m"), ("--model-path=m",)]
    )
    def test_where_it_listens_and_what_it_serves_is_said_to_llmtop(
        self, args: tuple[str, ...]
    ) -> None:
        with pytest.raises(UsageError):
            ADAPTER.command(spec(*args))

    def test_a_flag_is_no_model(self) -> None:
        with pytest.raises(UsageError):
            ADAPTER.command(spec(model="--trust-remote-code"))


class TestEnvironment:
    def test_the_plugin_goes_before_what_is_there(self) -> None:
        base = {"PYTHONPATH": "/mine", "HF_TOKEN": "s"}
        added = ADAPTER.environment(spec(), Path("/run/x/live"), base)
        folders = added["PYTHONPATH"].split(":")
        assert folders[-1] == "/mine"
        for module in ("llmtop_sglang", "llmtop_live"):
            assert any((Path(folder) / module / "__init__.py").is_file() for folder in folders)
        assert added["LLMTOP_LIVE_SOCKET"] == "/run/x/live"
        assert "HF_TOKEN" not in added

    def test_asking_for_its_health_costs_no_generation(self) -> None:
        name = "SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION"
        assert ADAPTER.ready_path == "/health"
        assert ADAPTER.environment(spec(), Path("/s"), {})[name] == "0"
        assert name not in ADAPTER.environment(spec(), Path("/s"), {name: "1"})

    @pytest.mark.parametrize(
        "before, after", [("mine", "mine,llmtop"), ("", None), (" , ", None), ("llmtop,b", None)]
    )
    def test_a_list_of_allowed_plugins_is_added_to(self, before: str, after: str | None) -> None:
        added = ADAPTER.environment(spec(), Path("/s"), {"SGLANG_PLUGINS": before})
        assert added.get("SGLANG_PLUGINS") == after

    def test_sglang_finds_the_entry_point_in_those_folders(self) -> None:
        folders = ADAPTER.environment(spec(), Path("/s"), {})["PYTHONPATH"].split(":")
        (entry,) = [
            point
            for distribution in distributions(path=folders)
            for point in distribution.entry_points
        ]
        assert (entry.group, entry.name) == ("sglang.srt.plugins", "llmtop")
        assert entry.value == "llmtop_sglang:register"


class TestOptions:
    def test_each_name_is_there_once_with_a_sentence(self) -> None:
        names = [option.name for option in ADAPTER.options]
        assert len(set(names)) == len(names)
        assert {
            *("max_running_requests", "chunked_prefill_size", "max_prefill_tokens"),
            *("speculative_algorithm", "speculative_num_draft_tokens", "disable_radix_cache"),
            *("mem_fraction_static", "context_length", "schedule_policy", "tp_size"),
            *("quantization", "kv_cache_dtype", "disable_cuda_graph", "disable_overlap_schedule"),
        } <= set(names)
        for option in ADAPTER.options:
            assert option.flag == "--" + option.name.replace("_", "-")
            assert re.search(r"[.)]$", option.summary)
        applies = {option.name: option.applies for option in ADAPTER.options}
        assert {name for name, how in applies.items() if how is not Applies.RESTART} == {
            *("max_running_requests", "chunked_prefill_size", "max_prefill_tokens"),
            *("max_queued_requests", "schedule_policy", "schedule_conservativeness"),
        }
        assert applies["max_running_requests"] is Applies.DRAINS

    def test_no_queue_limit_is_no_flag(self) -> None:
        given = ("--max-queued-requests", "50", "--tp", "2")
        assert with_options(ADAPTER, given, {"max_queued_requests": 0}) == ("--tp", "2")
        again = with_options(ADAPTER, given, {"max_queued_requests": 9})
        assert again[again.index("--max-queued-requests") + 1] == "9"

    def test_launch_values_in_all_forms(self) -> None:
        command = (
            *("sglang", "serve", "--model-path", "m", "--max-running-requests", "64"),
            *("--chunked-prefill-size=-1", "--tensor-parallel-size", "2"),
            *("--mem-fraction-static", "0.85", "--schedule-policy=lpm", "--disable-radix-cache"),
            *("--speculative-algorithm", "NGRAM", "--speculative-num-draft-tokens", "4"),
        )
        assert ADAPTER.launch_options(command) == {
            "max_running_requests": 64,
            "chunked_prefill_size": -1,
            "tp_size": 2,
            "mem_fraction_static": 0.85,
            "schedule_policy": "lpm",
            "disable_radix_cache": True,
            "speculative_algorithm": "NGRAM",
            "speculative_num_draft_tokens": 4,
        }
