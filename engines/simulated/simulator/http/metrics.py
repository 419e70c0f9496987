"""The /metrics page, with the names, labels and buckets of vLLM V1."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from typing import Protocol

import psutil
from msgspec import Struct

from llmtop.engines.simulated.simulator.model.exposition import Page
from llmtop.engines.simulated.simulator.model.pacing import Pacer
from llmtop.engines.simulated.simulator.model.scheduler import Scheduler
from llmtop.engines.simulated.simulator.model.telemetry import Telemetry


class CacheFacts(Struct, frozen=True):
    """Values of ``cache_config_info`` that the block pool does not have.

    overridden: the number of blocks given at launch, None if it follows from the memory.
    """

    utilization: float
    overridden: int | None
    max_model_len: int


class Rank(Protocol):
    """One scheduler with its measurements."""

    scheduler: Scheduler
    telemetry: Telemetry
    pacer: Pacer


class Metrics:
    """Creates the page from the present state of the schedulers and their telemetry.

    ranks: the data-parallel ranks, normally one. created: unix seconds of the start of counters.
    http_requests: by (route, method, status class).
    """

    def __init__(
        self, model: str, ranks: Sequence[Rank], cache: CacheFacts, created: float
    ) -> None:
        self._model = model
        self._ranks = tuple(ranks)
        self._rank = 0
        self._cache = cache
        self._created = created
        self._process = psutil.Process()
        self.http_requests: dict[tuple[str, str, str], int] = {}

    def page(self) -> str:
        """The exposition text."""
        page = Page({}, self._created)
        self._about_process(page)
        for rank in range(len(self._ranks)):
            self._rank = rank
            page.relabel({"engine": str(rank), "model_name": self._model})
            self._about_queue(page)
            self._about_tokens(page)
            self._about_requests(page)
            self._about_speculation(page)
            self._about_cache(page)
            self._about_simulation(page)
        return page.text()

    @property
    def _scheduler(self) -> Scheduler:
        return self._ranks[self._rank].scheduler

    @property
    def _telemetry(self) -> Telemetry:
        return self._ranks[self._rank].telemetry

    @property
    def _pacer(self) -> Pacer:
        return self._ranks[self._rank].pacer

    def _about_process(self, page: Page) -> None:
        process = self._process
        with process.oneshot():
            memory, cpu = process.memory_info(), process.cpu_times()
            started = process.create_time()
        python = {"implementation": platform.python_implementation(), "major": "3"}
        python |= {"version": platform.python_version()}
        for name, kind, text, labels, value in (
            ("python_info", "gauge", "The Python that runs this", python, 1.0),
            ("process_virtual_memory_bytes", "gauge", "Address space", {}, float(memory.vms)),
            ("process_resident_memory_bytes", "gauge", "Memory in RAM", {}, float(memory.rss)),
            ("process_start_time_seconds", "gauge", "Unix time of its start", {}, started),
            ("process_cpu_seconds_total", "counter", "CPU time", {}, cpu.user + cpu.system),
            ("process_open_fds", "gauge", "Open descriptors", {}, float(process.num_fds())),
        ):
            page.family(name, kind, text, [(labels, value)], bare=True)
        series = [
            ({"handler": handler, "method": method, "status": status}, float(count))
            for (handler, method, status), count in sorted(self.http_requests.items())
        ]
        page.family("http_requests_total", "counter", "HTTP requests answered", series, bare=True)

    def _about_queue(self, page: Page) -> None:
        scheduler = self._scheduler
        waiting = scheduler.queued
        page.gauge("vllm:num_requests_running", "Requests in the batch.", len(scheduler.running))
        page.gauge("vllm:num_requests_waiting", "Requests in the queue.", waiting)
        reasons = [({"reason": "capacity"}, waiting), ({"reason": "deferred"}, 0)]
        name = "vllm:num_requests_waiting_by_reason"
        page.family(name, "gauge", "Requests in the queue by reason.", reasons)
        states = [("awake", 1), ("weights_offloaded", 0), ("discard_all", 0)]
        asleep = [({"sleep_state": state}, value) for state, value in states]
        page.family("vllm:engine_sleep_state", "gauge", "Awake, or how far asleep.", asleep)
        usage = scheduler.pool.used / scheduler.pool.total
        page.gauge("vllm:kv_cache_usage_perc", "Share of KV blocks in use, 0 to 1.", usage)
        preempted = scheduler.totals.preemptions
        page.counter("vllm:num_preemptions", "Times a request was preempted.", preempted)
        text = "Requests refused because the queue was full (max_queued_requests)."
        page.counter("llmtop_simulator_requests_refused", text, scheduler.totals.refused)

    def _about_tokens(self, page: Page) -> None:
        telemetry, totals = self._telemetry, self._scheduler.totals
        page.counter(
            "vllm:prefix_cache_queries",
            "Tokens looked up in the prefix cache.",
            totals.prefix_queries,
        )
        page.counter(
            "vllm:prefix_cache_hits", "Tokens found in the prefix cache.", totals.prefix_hits
        )
        page.counter("vllm:prompt_tokens", "Prompt tokens processed.", telemetry.prompt_tokens)
        cached = telemetry.prompt_tokens_cached
        sources = [
            ({"source": "local_compute"}, telemetry.prompt_tokens - cached),
            ({"source": "local_cache_hit"}, cached),
            ({"source": "external_kv_transfer"}, 0),
        ]
        page.counter("vllm:prompt_tokens_by_source", "Prompt tokens by source.", sources)
        page.counter("vllm:prompt_tokens_cached", "Prompt tokens not computed again.", cached)
        generated = telemetry.generation_tokens
        page.counter("vllm:generation_tokens", "Tokens generated.", generated)
        page.histogram("vllm:iteration_tokens_total", "Tokens a step.", telemetry.step_tokens)

    def _about_requests(self, page: Page) -> None:
        telemetry = self._telemetry
        reasons = [({"finished_reason": name}, n) for name, n in telemetry.finished.items()]
        page.counter("vllm:request_success", "Requests ended, by reason.", reasons)
        for name, text, histogram in (
            ("request_prompt_tokens", "Prompt length.", telemetry.prompt_lengths),
            ("request_generation_tokens", "Answer length.", telemetry.generation_lengths),
            ("request_max_num_generation_tokens", "Requested limit.", telemetry.max_tokens),
            ("request_params_n", "The requested n.", telemetry.samples_asked),
            ("request_params_max_tokens", "The requested max_tokens.", telemetry.max_tokens),
            ("time_to_first_token_seconds", "TTFT.", telemetry.time_to_first_token),
            ("inter_token_latency_seconds", "ITL.", telemetry.inter_token_latency),
            ("request_time_per_output_token_seconds", "TPOT.", telemetry.time_per_output_token),
            ("e2e_request_latency_seconds", "Arrival to last token.", telemetry.e2e_latency),
            ("request_queue_time_seconds", "Arrival to first scheduled.", telemetry.queue_time),
            ("request_inference_time_seconds", "Scheduled to last.", telemetry.inference_time),
            ("request_prefill_time_seconds", "Scheduled to first token.", telemetry.prefill_time),
            ("request_decode_time_seconds", "First to last token.", telemetry.decode_time),
            ("request_num_preemptions", "Preemptions of a request.", telemetry.preemptions),
            ("request_prefill_kv_computed_tokens", "Not cached.", telemetry.prefill_computed),
        ):
            page.histogram(f"vllm:{name}", text, histogram)

    def _about_speculation(self, page: Page) -> None:
        if self._scheduler.speculation is None:
            return
        totals = self._scheduler.totals
        page.counter("vllm:spec_decode_num_drafts", "Drafts proposed.", totals.drafts)
        page.counter("vllm:spec_decode_num_draft_tokens", "Tokens in them.", totals.draft_tokens)
        accepted = totals.accepted_tokens
        page.counter("vllm:spec_decode_num_accepted_tokens", "Of those, accepted.", accepted)
        at = [({"position": str(i)}, n) for i, n in enumerate(totals.accepted_at)]
        page.counter("vllm:spec_decode_num_accepted_tokens_per_pos", "Accepted by position.", at)

    def _about_cache(self, page: Page) -> None:
        pool, cache = self._scheduler.pool, self._cache
        tokens = pool.total * pool.block_size
        facts: Mapping[str, object] = {
            "block_size": pool.block_size,
            "cache_dtype": "auto",
            "enable_prefix_caching": pool.caching,
            "engine": self._rank,
            "gpu_memory_utilization": cache.utilization,
            "kv_cache_max_concurrency": tokens / cache.max_model_len,
            "kv_cache_size_tokens": tokens,
            "num_gpu_blocks": pool.total,
            "num_gpu_blocks_override": cache.overridden,
            "prefix_caching_hash_algo": "builtin",
        }
        labels = {name: str(value) for name, value in facts.items()}
        text = "The KV cache's configuration."
        page.family("vllm:cache_config_info", "gauge", text, [(labels, 1.0)], bare=True)

    def _about_simulation(self, page: Page) -> None:
        page.gauge(
            "llmtop_simulator_lag_seconds",
            "Lag of the simulation behind its schedule; above some milliseconds the numbers show "
            "the speed of this machine, not of the virtual GPU.",
            self._pacer.lag,
        )
        page.counter(
            "llmtop_simulator_lost_seconds",
            "Seconds dropped from the schedule because this machine could not keep up.",
            self._pacer.lost,
        )
