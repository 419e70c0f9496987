"""The live options of vLLM's scheduler: which ones it has, and how they change between steps."""

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
    """Sets values of one scheduler. Runs on the engine's thread. version: of vLLM."""

    def __init__(self, scheduler: Any, version: str, log: logging.Logger) -> None:
        self._scheduler = scheduler
        self._log = log
        self._broken = False
        self._launch: dict[str, Any] = {}  # attribute -> its launch value
        self._cap: int | None = None  # max_num_seqs, if it is lower than vLLM's asserted limit
        self._trim_to: int | None = None  # draft tokens of a request, if llmtop drops the others
        self._threshold_at_launch: int | None = None
        self._admission = ""  # the attribute that limits admission
        self._table: list[int] | None = None  # drafts by batch size, if given at launch
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

    # Which options this scheduler has.

    def _seqs_option(self) -> TunableOption | None:
        """The limit of admission into the running batch.

        0.31 and later have an attribute only for that. In earlier versions schedule() also asserts
        this limit at its end, so it must not be lower than the running requests (see _reapply).
        """
        limit = self._first_count("max_num_active_reqs", "max_num_running_reqs")
        if limit is None or not isinstance(getattr(self._scheduler, "running", None), list):
            return None
        self._admission = limit
        launch = self._remember(limit)
        slots = self._first_count("max_num_running_reqs") or limit
        most = max(launch, getattr(self._scheduler, slots))
        return TunableOption(
            "max_num_seqs", launch, 1, most, UP_TO_LAUNCH, cannot_evict=self._cannot_evict()
        )

    def _cannot_evict(self) -> str | None:
        """Why the plugin cannot preempt running requests on this scheduler; None if it can."""
        scheduler = self._scheduler
        try:
            parameters = inspect.signature(scheduler._preempt_request).parameters.values()
        except (AttributeError, TypeError, ValueError):
            return "llmtop does not know this scheduler's preemption method"
        plain = inspect.Parameter.POSITIONAL_OR_KEYWORD
        if [p.kind for p in parameters if p.default is p.empty] != [plain, plain]:
            # Known: (request, timestamp), and optional parameters.
            return "llmtop does not know an argument of this scheduler's preemption"
        if getattr(scheduler, "connector", None) is not None:
            return "a KV connector still uses the blocks of running requests"
        if getattr(scheduler, "use_v2_model_runner", False) and not hasattr(
            scheduler, "reset_preempted_req_ids"
        ):
            # Without this set (0.24 and earlier; 0.26 has it) the workers learn only of preemptions
            # inside schedule(). Model runner V2 would keep the slots of other ones forever.
            return "this version does not report preemptions outside a step to its workers"
        return None

    def _tokens_option(self) -> TunableOption | None:
        """The token budget of a step."""
        scheduler = self._scheduler
        if self._first_count("max_num_scheduled_tokens") is None:
            return None
        config = getattr(scheduler, "scheduler_config", None)
        if getattr(config, "disable_chunked_mm_input", False):
            return None  # an image larger than the budget would wait forever
        launch = self._remember("max_num_scheduled_tokens")
        # A step must have room for one request with all its drafts,
        least = 1 + sum(_count(scheduler, n) for n in ("num_spec_tokens", "num_prefill_lookahead"))
        if getattr(scheduler, "need_mamba_block_aligned_split", False):
            least = max(least, _count(scheduler, "block_size"))  # for a block,
        if not getattr(config, "enable_chunked_prefill", True):
            least = max(least, _count(scheduler, "max_model_len"))  # and for a whole prompt.
        flag = getattr(config, "max_num_batched_tokens", launch)
        rest = f"the rest of the launch value {flag} is reserved for draft tokens"
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
        # extract_hidden_states uses the same code to return hidden states, and drafts nothing.
        method = getattr(speculative, "method", None)
        if speculative is None or launch < 1 or method == "extract_hidden_states":
            return None
        table = getattr(scheduler, "dynamic_sd_lookup", None)
        if table is not None:
            # With a launch table of drafts by batch size, the drafter accepts any number up to the
            # maximum. Without it, another number ends the worker: ngram_gpu, medusa and suffix
            # assert their fixed number (observed).
            if not isinstance(table, list) or not all(_is_count(n) for n in table):
                return None
            self._table = self._remember("dynamic_sd_lookup")
            note = "upper bound for the launch table of drafts by batch size"
        else:
            note = "the drafter still proposes at full cost; tokens above the limit are dropped"
        return TunableOption("num_speculative_tokens", launch, 0, launch, UP_TO_LAUNCH, note)

    def _threshold_option(self) -> TunableOption | None:
        """The longest chunk of one prompt in a step. vLLM reads it at each step."""
        scheduler = self._scheduler
        config = getattr(scheduler, "scheduler_config", None)
        launch = getattr(config, THRESHOLD, None)
        chunked = getattr(config, "enable_chunked_prefill", False)
        # An image larger than the chunk would wait forever. So would a chunk that ends inside a
        # block, if only whole blocks may be computed.
        whole = getattr(config, "disable_chunked_mm_input", False)
        whole = whole or getattr(scheduler, "need_mamba_block_aligned_split", False)
        if not _is_count(launch) or not chunked or whole or self._tokens is None:
            return None
        least = 1 + sum(_count(scheduler, n) for n in ("num_spec_tokens", "num_prefill_lookahead"))
        self._threshold_at_launch = launch
        return TunableOption(
            THRESHOLD,
            launch,
            0,
            max(launch, self._tokens.launch),
            "live",
            "0 is off; vLLM 0.32 and later do not split the prompt of the only request",
            least_on=least,
        )

    def _first_count(self, *names: str) -> str | None:
        return next((n for n in names if _is_count(getattr(self._scheduler, n, None))), None)

    def _remember(self, name: str) -> Any:
        self._launch[name] = getattr(self._scheduler, name)
        return self._launch[name]

    def counts(self) -> tuple[int, int]:
        """The present (running, waiting) requests of this scheduler."""
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
        return _count(self._scheduler, self._admission or "max_num_running_reqs")

    # How changes are applied, at the start of schedule().

    def step(self) -> None:
        """Apply waiting changes, and repeat what each step needs. Never raises: this is the guard.

        It catches Exception, not BaseException: vLLM's signal handler ends the engine by
        SystemExit.
        """
        if self._broken:
            return
        changes: list[ChangeRequest] = []
        try:
            changes = self.tunables.take()
            self._apply(changes)
            again = self._reapply()
            self.tunables.settle(changes, again)
        except Exception as error:
            self._disable(error, changes)

    def _apply(self, changes: list[ChangeRequest]) -> None:
        scheduler = self._scheduler
        evict: ChangeRequest | None = None
        for change in changes:
            if change.option is self._seqs:
                setattr(scheduler, self._admission, change.to)
                asserted = self._admission == "max_num_running_reqs"
                self._cap = change.to if asserted and change.to < change.option.launch else None
                evict = change if change.evict else None
            elif change.option is self._tokens:
                scheduler.max_num_scheduled_tokens = change.to
            elif change.option is self._threshold:
                setattr(scheduler.scheduler_config, THRESHOLD, change.to)
            elif change.option is self._policy:
                self._queue.apply(change.option.choices[change.to])
            elif self._table is not None:
                scheduler.dynamic_sd_lookup = [min(n, change.to) for n in self._table]
            else:
                self._trim_to = change.to if change.to < change.option.launch else None
        if evict is not None:
            self._evict(evict)

    def _evict(self, change: ChangeRequest) -> None:
        """Put requests above the new cap back into the queue, the latest arrivals first.

        vLLM must not resume them in the same step. It does not, because the batch is full.
        """
        running = self._scheduler.running
        policy = getattr(self._scheduler, "policy", None)
        now = time.monotonic()
        while len(running) > change.to:
            victim = len(running) - 1
            if getattr(policy, "value", None) == "priority":  # the same choice as vLLM's
                victim = max(range(len(running)), key=lambda i: _precedence(running[i]))
            request = running.pop(victim)
            status = request.status
            try:
                self._scheduler._preempt_request(request, now)
            except Exception:
                if request.status == status:  # not preempted yet: it continues to run
                    running.insert(victim, request)
                raise
            change.evicted += 1

    def _reapply(self) -> bool:
        """Repeat what each step needs. Returns whether the next step needs it too."""
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
                    # A new list, because the asynchronous scheduler shares one between requests.
                    request.spec_token_ids = drafts[:most]
            again = True
        return again

    def _disable(self, error: Exception, changes: list[ChangeRequest]) -> None:
        """The guard: restore the launch values and stop permanently. The engine continues."""
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
            self.tunables.disable(reason, changes)
            # A warning, not an error: the engine continues. If it ends later, the cause is another.
            self._log.warning(
                "llmtop: live options are off, launch values restored", exc_info=error
            )
        except Exception:
            self.tunables.attention = False


def rank_of(scheduler: Any) -> int:
    """The data-parallel rank of a scheduler; 0 without data parallelism.

    It prefers data_parallel_index: vLLM sets data_parallel_rank to 0 in engines that share nothing.
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
