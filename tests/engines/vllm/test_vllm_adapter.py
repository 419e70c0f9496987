"""The vLLM adapter: its command line, its environment, and the numbers of real engines."""

from __future__ import annotations

import gzip
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from llmtop import UsageError
from llmtop.engines.core.options import Applies
from llmtop.engines.core.records import LaunchSpec
from llmtop.engines.core.samples import Counter, Latency, Reading
from llmtop.engines.vllm.adapter import ADAPTER
from tests.folders import TESTS

DATA = TESTS / "data" / "vllm"


def recorded(name: str) -> str:
    return gzip.decompress((DATA / f"{name}.gz").read_bytes()).decode()


class Text:
    """Exposition text behind the two questions that an adapter asks."""

    def __init__(self, text: str) -> None:
        self._samples = [
            sample
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name.startswith(ADAPTER.prefixes)
        ]

    def value(self, name: str, **labels: str) -> float | None:
        found = [value for have, value in self.series(name) if labels.items() <= dict(have).items()]
        return sum(found) if found else None

    def series(self, name: str) -> Sequence[tuple[Mapping[str, str], float]]:
        return [(s.labels, s.value) for s in self._samples if s.name == name]


def read(text: str) -> Reading:
    return ADAPTER.read(Text(text), 1000.0, 10.0)


def spec(*args: str, **more: object) -> LaunchSpec:
    given: dict[str, object] = {
        "kind": "vllm",
        "name": "a",
        "model": "org/model",
        "host": "127.0.0.1",
        "port": 8001,
        "args": args,
        **more,
    }
    return LaunchSpec(**given)  # type: ignore[arg-type]


class TestReading:
    def test_an_engine_under_load(self) -> None:
        reading = read(recorded("metrics_loaded_0.26.txt"))
        assert (reading.time, reading.elapsed) == (1000.0, 10.0)
        assert reading.model == "llama-8b-dummy"
        assert (reading.running, reading.waiting) == (365, 147)
        assert reading.kv_usage == pytest.approx(0.22176802)
        assert reading.kv_tokens_total == 919_824
        assert reading.counters[Counter.REQUESTS_OK] == 1870
        assert reading.counters[Counter.REQUESTS_FAILED] == 0
        assert reading.process_start == 1.7953273857e9
        # Launched without speculation: those are not known, which is not zero.
        assert Counter.DRAFTS not in reading.counters
        assert reading.accepted_per_position == ()

    def test_speculation_and_counters(self) -> None:
        reading = read(recorded("metrics_spec_0.32.txt"))
        assert reading.counters == {
            Counter.OUTPUT_TOKENS: 41200,
            Counter.PROMPT_TOKENS: 12566,
            Counter.PREFIX_QUERIES: 12566,
            Counter.PREFIX_HITS: 0,
            Counter.PREEMPTIONS: 14,
            Counter.DRAFTS: 9122,
            Counter.DRAFT_TOKENS: 28782,
            Counter.ACCEPTED_TOKENS: 26277,
            Counter.REQUESTS_OK: 206,
            Counter.REQUESTS_FAILED: 0,
        }
        assert reading.accepted_per_position == (8523, 7419, 5254, 5081)
        assert (reading.running, reading.waiting, reading.kv_usage) == (0, 0, 0.0)
        assert reading.kv_tokens_total == 25_600

    def test_each_latency_has_its_histogram(self) -> None:
        histograms = read(recorded("metrics_spec_0.32.txt")).histograms
        assert set(histograms) == set(Latency)
        for latency, histogram in histograms.items():
            assert list(histogram.bounds) == sorted(histogram.bounds), latency
            assert histogram.bounds[-1] == math.inf
            assert list(histogram.counts) == sorted(histogram.counts)
        queue = histograms[Latency.QUEUE]
        assert queue.bounds[:3] == (0.3, 0.5, 0.8)
        assert queue.counts[:3] == (136, 140, 149)
        assert queue.counts[-1] == 206
        assert queue.total == pytest.approx(141.49077119)
        assert histograms[Latency.ITL].counts[-1] == 14758

    def test_data_parallel_engines_are_laid_together(self) -> None:
        one = recorded("metrics_spec_0.32.txt")
        ours = [line for line in one.splitlines() if line.startswith("vllm:")]
        other = "\n".join(ours).replace('engine="0"', 'engine="1"')
        other = other.replace('kv_cache_size_tokens="25600"', 'kv_cache_size_tokens="76800"')
        other = re.sub(r"(kv_cache_usage_perc\{.*?\}) 0\.0", r"\1 0.8", other)
        other = re.sub(r"(num_requests_running\{.*?\}) 0\.0", r"\1 5.0", other)
        alone, both = read(one), read(one + other + "\n")
        assert both.running == 5
        assert both.kv_tokens_total == 102_400
        assert both.kv_usage == pytest.approx(0.6)  # three quarters of the room are 0.8 full
        assert both.counters == {name: 2 * n for name, n in alone.counters.items()}
        assert both.accepted_per_position == (17046, 14838, 10508, 10162)
        for latency, histogram in both.histograms.items():
            assert histogram.bounds == alone.histograms[latency].bounds
            assert histogram.counts == tuple(2 * n for n in alone.histograms[latency].counts)
            assert histogram.total == pytest.approx(2 * alone.histograms[latency].total)

    def test_capacity_from_blocks_and_not_at_all(self) -> None:
        info = 'vllm:cache_config_info{{block_size="16",num_gpu_blocks="{}",engine="0"}} 1.0\n'
        usage = 'vllm:kv_cache_usage_perc{engine="0"} 0.5\nvllm:kv_cache_usage_perc{engine="1"} 1\n'
        assert read(info.format(100)).kv_tokens_total == 1600
        assert read(info.format("None")).kv_tokens_total is None
        # One engine's capacity alone would weigh the other with nothing: then it is the mean.
        assert read(info.format(100) + usage).kv_usage == 0.75

    def test_nothing_and_nonsense_are_not_known(self) -> None:
        assert read("") == Reading(time=1000.0, elapsed=10.0)
        wild = read(
            "vllm:num_requests_running NaN\nvllm:num_requests_waiting +Inf\n"
            "vllm:kv_cache_usage_perc NaN\nvllm:generation_tokens_total NaN\n"
            'vllm:time_to_first_token_seconds_bucket{le="often"} 1\n'
            "vllm:time_to_first_token_seconds_sum 1\n"
            'vllm:inter_token_latency_seconds_bucket{le="1.0"} 1\n'
            "vllm:inter_token_latency_seconds_sum 1\n"
            'vllm:spec_decode_num_accepted_tokens_per_pos_total{position="²"} 1\n'
        )
        assert wild == Reading(time=1000.0, elapsed=10.0)


class TestCommand:
    def test_serve_and_where_to_listen_and_the_operators_flags_last(self) -> None:
        assert ADAPTER.command(spec("--max-num-seqs", "64")) == (
            *("vllm", "serve", "org/model", "--host", "127.0.0.1", "--port", "8001"),
            *("--disable-access-log-for-endpoints", "/metrics,/health,/version,/v1/models"),
            *("--max-num-seqs", "64"),
        )

    def test_a_path_and_a_python_in_place_of_the_program(self) -> None:
        by_path = ADAPTER.command(spec(program=("/opt/v/bin/vllm",)))
        assert by_path[:3] == ("/opt/v/bin/vllm", "serve", "org/model")
        by_python = ADAPTER.command(spec(program=("/opt/v/bin/python", "-m", ADAPTER.module)))
        assert by_python[2:5] == ("vllm.entrypoints.cli.main", "serve", "org/model")

    @pytest.mark.parametrize(
        "args",
        [
            ("--disable-access-log-for-endpoints", "/ping"),
            ("--disable-access-log-for-endpoints=/ping",),
            ("--disable_access_log_for_endpoints=/ping",),
            ("--disable-uvicorn-access-log",),
        ],
    )
    def test_the_operators_word_on_the_access_log_counts(self, args: tuple[str, ...]) -> None:
        assert ADAPTER.command(spec(*args))[7:] == args

    @pytest.mark.parametrize("args", [("--port", "9"), ("--host=0.0.0.0",), ("--uds", "/x")])
    def test_where_it_listens_is_said_to_llmtop(self, args: tuple[str, ...]) -> None:
        with pytest.raises(UsageError):
            ADAPTER.command(spec(*args))

    def test_a_flag_is_no_model(self) -> None:
        with pytest.raises(UsageError):
            ADAPTER.command(spec(model="--trust-remote-code"))


class TestEnvironment:
    def test_the_plugin_goes_before_what_is_there(self) -> None:
        added = ADAPTER.environment(
            spec(), Path("/run/x/live"), {"PYTHONPATH": "/mine", "HF_TOKEN": "s"}
        )
        folders = added["PYTHONPATH"].split(":")
        assert folders[-1] == "/mine"
        found = [Path(folder) / name for folder in folders[:-1] for name in ("llmtop_vllm",)]
        assert any((module / "__init__.py").is_file() for module in found)
        assert added["LLMTOP_LIVE_SOCKET"] == "/run/x/live"
        assert set(added) == {"PYTHONPATH", "LLMTOP_LIVE_SOCKET", "PYTHONUNBUFFERED"}

    def test_an_empty_path_adds_no_empty_folder(self) -> None:
        # An empty entry of PYTHONPATH would be the current folder.
        added = ADAPTER.environment(spec(), Path("/s"), {"PYTHONPATH": ""})
        assert all(added["PYTHONPATH"].split(":"))

    @pytest.mark.parametrize(
        "before, after", [("mine", "mine,llmtop"), ("", "llmtop"), ("llmtop,mine", None)]
    )
    def test_a_list_of_allowed_plugins_is_added_to(self, before: str, after: str | None) -> None:
        added = ADAPTER.environment(spec(), Path("/s"), {"VLLM_PLUGINS": before})
        assert added.get("VLLM_PLUGINS") == after

    def test_vllm_finds_the_entry_point_in_those_folders(self) -> None:
        from importlib.metadata import distributions

        folders = ADAPTER.environment(spec(), Path("/s"), {})["PYTHONPATH"].split(":")
        (entry,) = [
            point
            for distribution in distributions(path=folders)
            for point in distribution.entry_points
        ]
        assert (entry.group, entry.name) == ("vllm.general_plugins", "llmtop")
        assert entry.value == "llmtop_vllm:register"


class TestOptions:
    def test_each_name_is_there_once_with_a_sentence(self) -> None:
        names = [option.name for option in ADAPTER.options]
        assert len(set(names)) == len(names)
        assert {
            *("max_num_seqs", "max_num_batched_tokens", "num_speculative_tokens"),
            *("enable_prefix_caching", "gpu_memory_utilization", "max_model_len"),
            *("scheduling_policy", "tensor_parallel_size", "quantization", "kv_cache_dtype"),
            *("enforce_eager", "async_scheduling"),
        } <= set(names)
        for option in ADAPTER.options:
            assert option.flag.startswith("--") or option.name == "max_queued_requests"
            assert option.summary.endswith(".")
        live = [o.name for o in ADAPTER.options if o.applies is not Applies.RESTART]
        assert live == [
            *("max_num_seqs", "max_num_batched_tokens", "num_speculative_tokens"),
            *("max_queued_requests", "long_prefill_token_threshold", "scheduling_policy"),
        ]

    def test_launch_values_in_all_forms(self) -> None:
        command = (
            *("vllm", "serve", "org/model", "--max-num-seqs", "64", "--max_num_seqs=32"),
            *("--max-num-batched-tokens", "2K", "--max-model-len=1k", "-tp", "2"),
            *("--gpu-memory-utilization", "0.9", "--scheduling-policy=priority"),
            *("--no-enable-prefix-caching", "--enforce-eager", "--kv-cache-dtype", "fp8"),
            *("--speculative-config", '{"method": "ngram", "num_speculative_tokens": 4}'),
        )
        assert ADAPTER.launch_options(command) == {
            "max_num_seqs": 32,
            "max_num_batched_tokens": 2048,
            "max_model_len": 1000,
            "tensor_parallel_size": 2,
            "gpu_memory_utilization": 0.9,
            "scheduling_policy": "priority",
            "enable_prefix_caching": False,
            "enforce_eager": True,
            "kv_cache_dtype": "fp8",
            "num_speculative_tokens": 4,
            "speculative_method": "ngram",
        }

    def test_speculation_key_by_key(self) -> None:
        command = ("-sc.method=eagle3", "--speculative-config.num-speculative-tokens", "3")
        assert ADAPTER.launch_options(command) == {
            "speculative_method": "eagle3",
            "num_speculative_tokens": 3,
        }

    @pytest.mark.parametrize(
        "command",
        [
            (),
            ("--max-num-seqs",),
            ("--max-num-seqs", "many"),
            ("--max-model-len", "auto"),
            ("--max-num-seqs", "--other"),
            ("--speculative-config", "{bad"),
            ("--speculative-config", "[" * 50_000),
            ("--speculative-config", '{"num_speculative_tokens": true, "method": 3}'),
            ("--max-num-batched-tokens", "1e999k"),
        ],
        ids=lambda command: str(command)[:40],
    )
    def test_what_cannot_be_read_is_not_told(self, command: tuple[str, ...]) -> None:
        assert ADAPTER.launch_options(command) == {}
