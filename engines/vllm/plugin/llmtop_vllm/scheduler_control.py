"""What is changed in vLLM's scheduler, and how: found by looking, done between two steps."""

from __future__ import annotations

import inspect
import logging
import os
import time
from typing import Any

from llmtop_live.tunables import ChangeRequest, TunableOption, Tunables

from llmtop_vllm.queue_policy import QueuePolicy

UP_TO_LAUNCH = "live, up to the launch value"
THRESHOLD = "long_prefill_token_threshold"


class SchedulerControl:
    """The values of one scheduler that we set, and how. All of it runs on the engine's thread."""

    def __init__(self, scheduler: Any, version: str, log: logging.Logger) -> None:
        self._scheduler = scheduler
        self._log = log
        self._broken = False
        self._launch: dict[str, Any] = {}  # attribute -> what vLLM had set it to
        self._cap: int | None = None  # max_num_seqs, where vLLM's own limit must be kept above it
        self._trim_to: int | None = None  # drafts a request, where they are trimmed by us
        self._threshold_at_launch: int | None = None
        self._gate = ""  # the attribute that limits admission
        self._table: list[int] | None = None  # drafts by batch size, where given at launch
        self._seqs = self._seqs_option()
        self._tokens = self._tokens_option()
        self._drafts = self._drafts_option()
        self._threshold = self._threshold_option()
        self._queue = QueuePolicy(scheduler)
        self._policy = self._queue.option()
        found = (self._seqs, self._tokens, self._drafts, self._threshold, self._policy)
        options = [option for option in found if option is not None]
        self.tunables = Tunables(
            "vllm", version, os.getpid(), options, self.counts, rank=rank_of(scheduler)
        )

    # What there is.

    def _seqs_option(self) -> TunableOption | None:
        """Admission into the running batch.

        0.31 and later have a gate of their own for that. Before it, the gate is also the limit that
        schedule() asserts at its end, so it must never fall below what is running (see _reapply).
        """
        gate = self._first_count("max_num_active_reqs", "max_num_running_reqs")
        if gate is None or not isinstance(getattr(self._scheduler, "running", None), list):
            return None
        self._gate = gate
        launch = self._remember(gate)
        slots = self._first_count("max_num_running_reqs") or gate
        most = max(launch, getattr(self._scheduler, slots))
        return TunableOption(
            "max_num_seqs", launch, 1, most, UP_TO_LAUNCH, cannot_evict=self._cannot_evict()
        )

    def _cannot_evict(self) -> str | None:
        """Why running requests cannot be preempted from outside on this scheduler, or None."""
        scheduler = self._scheduler
        try:
            parameters = inspect.signature(scheduler._preempt_request).parameters.values()
        except (AttributeError, TypeError, ValueError):
            return "this scheduler has no preemption that llmtop knows"
        plain = inspect.Parameter.POSITIONAL_OR_KEYWORD
        if [p.kind for p in parameters if p.default is p.empty] != [plain, plain]:
            # Known: (request, timestamp), and more that may be left out.
            return "llmtop does not know an argument of this scheduler's preemption"
        if getattr(scheduler, "connector", None) is not None:
            return "a KV connector still uses the blocks of running requests"
        if getattr(scheduler, "use_v2_model_runner", False) and not hasattr(
            scheduler, "reset_preempted_req_ids"
        ):
            # Before this set came (after 0.24, by 0.26) the workers were told only of preemptions
            # from inside schedule(), and model runner V2 would keep the slots of ours for ever.
            return "this version does not report outside preemptions to its workers"
        return None

    def _tokens_option(self) -> TunableOption | None:
        """The token budget of a step."""
        scheduler = self._scheduler
        if self._first_count("max_num_scheduled_tokens") is None:
            return None
        config = getattr(scheduler, "scheduler_config", None)
        if getattr(config, "disable_chunked_mm_input", False):
            return None  # an image larger than the budget would wait for ever
        launch = self._remember("max_num_scheduled_tokens")
        # A step must have room for one request with all its drafts, ...
        least = 1 + sum(_count(scheduler, n) for n in ("num_spec_tokens", "num_prefill_lookahead"))
        if getattr(scheduler, "need_mamba_block_aligned_split", False):
            least = max(least, _count(scheduler, "block_size"))  # ... or blocks for these, ...
        if not getattr(config, "enable_chunked_prefill", True):
            least = max(least, _count(scheduler, "max_model_len"))  # ... or a whole prompt.
        flag = getattr(config, "max_num_batched_tokens", launch)
        rest = f"the rest of the {flag} given at launch is room for drafts"
        return TunableOption(
            "max_num_batched_tokens",
            launch,
            min(least, launch),
            launch,
            UP_TO_LAUNCH,
            rest if flag != launch else None,
        )

    def _drafts_option(self) -> TunableOption | None:
        """Draft tokens a step and request, 0 is off. Only where speculation was armed at launch."""
        scheduler = self._scheduler
        speculative = getattr(scheduler.vllm_config, "speculative_config", None)
        launch = _count(scheduler, "num_spec_tokens")
        # extract_hidden_states drafts nothing: it hands out hidden states by the same machinery.
        method = getattr(speculative, "method", None)
        if speculative is None or launch < 1 or method == "extract_hidden_states":
            return None
        table = getattr(scheduler, "dynamic_sd_lookup", None)
        if table is not None:
            # Launched with a table of drafts by batch size, so the drafter is built for any number
            # up to its maximum. Without the table the same replacement kills the worker: ngram_gpu,
            # medusa and suffix assert their fixed number (an engine died of it).
            if not isinstance(table, list) or not all(_is_count(n) for n in table):
                return None
            self._table = self._remember("dynamic_sd_lookup")
            note = "the most that the launch table of drafts by batch size may ask for"
        else:
            note = "the drafter still proposes at full cost; tokens above the limit are dropped"
        return TunableOption("num_speculative_tokens", launch, 0, launch, UP_TO_LAUNCH, note)

    def _threshold_option(self) -> TunableOption | None:
        """The longest piece of one prompt in a step. vLLM reads it at each step."""
        scheduler = self._scheduler
        config = getattr(scheduler, "scheduler_config", None)
        launch = getattr(config, THRESHOLD, None)
        cut = getattr(config, "enable_chunked_prefill", False)
        # An image larger than the piece would wait for ever, and so would a piece that ends in the
        # middle of a block which must be whole.
        whole = getattr(config, "disable_chunked_mm_input", False)
        whole = whole or getattr(scheduler, "need_mamba_block_aligned_split", False)
        if not _is_count(launch) or not cut or whole or self._tokens is None:
            return None
        least = 1 + sum(_count(scheduler, n) for n in ("num_spec_tokens", "num_prefill_lookahead"))
        self._threshold_at_launch = launch
        return TunableOption(
            THRESHOLD,
            launch,
            0,
            max(launch, self._tokens.launch),
            "live",
            "0 is off; vLLM 0.32 and later do not cut the prompt of a request that is alone",
            least_on=least,
        )

    def _first_count(self, *names: str) -> str | None:
        return next((n for n in names if _is_count(getattr(self._scheduler, n, None))), None)

    def _remember(self, name: str) -> Any:
        self._launch[name] = getattr(self._scheduler, name)
        return self._launch[name]

    def counts(self) -> tuple[int, int]:
        """(running, waiting) requests of this scheduler now."""
        counts = getattr(self._scheduler, "get_request_counts", None)
        if counts is not None:
            running, waiting = counts()
            return int(running), int(waiting)
        return len(self._scheduler.running), len(self._scheduler.waiting)

    @property
    def slots(self) -> int:
        """How many requests may run now."""
        if self._cap is not None:
            return self._cap
        return _count(self._scheduler, self._gate or "max_num_running_reqs")

    # What is done about it, at the head of schedule().

    def step(self) -> None:
        """Put waiting changes into force, and hold up those that need it at each step. The guard.

        Exception, not BaseException: SystemExit is how vLLM's own signal handler ends the engine.
        """
        if self._broken:
            return
        orders: list[ChangeRequest] = []
        try:
            orders = self.tunables.take()
            self._apply(orders)
            again = self._reapply()
            self.tunables.settle(orders, again)
        except Exception as error:
            self._disable(error, orders)

    def _apply(self, orders: list[ChangeRequest]) -> None:
        scheduler = self._scheduler
        evict: ChangeRequest | None = None
        for order in orders:
            if order.option is self._seqs:
                setattr(scheduler, self._gate, order.to)
                below = self._gate == "max_num_running_reqs" and order.to < order.option.launch
                self._cap = order.to if below else None
                evict = order if order.evict else None
            elif order.option is self._tokens:
                scheduler.max_num_scheduled_tokens = order.to
            elif order.option is self._threshold:
                setattr(scheduler.scheduler_config, THRESHOLD, order.to)
            elif order.option is self._policy:
                self._queue.apply(order.option.choices[order.to])
            elif self._table is not None:
                scheduler.dynamic_sd_lookup = [min(n, order.to) for n in self._table]
            else:
                self._trim_to = order.to if order.to < order.option.launch else None
        if evict is not None:
            self._evict(evict)

    def _evict(self, order: ChangeRequest) -> None:
        """Put requests above the new cap back into the queue, those that came last first.

        They cannot be resumed in this very step, which vLLM could not stand: the batch is full.
        """
        running = self._scheduler.running
        policy = getattr(self._scheduler, "policy", None)
        now = time.monotonic()
        while len(running) > order.to:
            victim = len(running) - 1
            if getattr(policy, "value", None) == "priority":  # as vLLM itself would choose
                victim = max(range(len(running)), key=lambda i: _precedence(running[i]))
            request = running.pop(victim)
            status = request.status
            try:
                self._scheduler._preempt_request(request, now)
            except Exception:
                if request.status == status:  # nothing had happened yet: it continues to run
                    running.insert(victim, request)
                raise
            order.evicted += 1

    def _reapply(self) -> bool:
        """Do what each step needs again. Returns whether there was anything to do."""
        scheduler = self._scheduler
        again = False
        if self._cap is not None:
            scheduler.max_num_running_reqs = max(self._cap, len(scheduler.running))
            again = True
        most = self._trim_to
        if most is not None:
            for request in scheduler.running:
                drafts = request.spec_token_ids
                if len(drafts) > most:
                    # A new list: the asynchronous scheduler shares one among all requests.
                    request.spec_token_ids = drafts[:most]
            again = True
        return again

    def _disable(self, error: Exception, orders: list[ChangeRequest]) -> None:
        """The guard: launch values back, and never again. The engine runs on as vLLM made it."""
        self._broken = True
        for name, value in self._launch.items():
            try:
                setattr(self._scheduler, name, value)
            except Exception:
                self._log.exception("llmtop: could not restore %s", name)
        try:
            if self._threshold_at_launch is not None:
                setattr(self._scheduler.scheduler_config, THRESHOLD, self._threshold_at_launch)
            self._queue.restore()
        except Exception:
            self._log.exception("llmtop: could not restore the order of the queue")
        try:
            reason = f"{type(error).__name__} in llmtop's part of schedule(): {error}"
            self.tunables.disable(reason, orders)
            # A warning: the engine keeps running. What ends it later has another cause.
            self._log.warning(
                "llmtop: live options are off, launch values restored", exc_info=error
            )
        except Exception:
            self.tunables.attention = False


def rank_of(scheduler: Any) -> int:
    """Which data-parallel rank a scheduler is of; 0 where there is one.

    data_parallel_index, because vLLM sets data_parallel_rank to 0 in engines that share nothing.
    """
    parallel = getattr(scheduler.vllm_config, "parallel_config", None)
    ranks = (getattr(parallel, n, None) for n in ("data_parallel_index", "data_parallel_rank"))
    return next((rank for rank in ranks if _is_count(rank)), 0)


def _precedence(request: Any) -> tuple[Any, Any]:
    return request.priority, request.arrival_time


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _count(holder: Any, name: str) -> int:
    value = getattr(holder, name, 0)
    return value if _is_count(value) else 0
