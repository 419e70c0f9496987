"""What is changed in vLLM's scheduler, and how: found by looking, done between two steps."""

from __future__ import annotations

import inspect
import logging
import os
import time
from typing import Any

from llmtop_live.desk import Desk, Dial, Order

UP_TO_LAUNCH = "live, up to the launch value"


class Reins:
    """The values of one scheduler that we set, and how. All of it runs on the engine's thread."""

    def __init__(self, scheduler: Any, version: str, log: logging.Logger) -> None:
        self._scheduler = scheduler
        self._log = log
        self._broken = False
        self._launch: dict[str, Any] = {}  # attribute -> what vLLM had set it to
        self._cap: int | None = None  # max_num_seqs, where vLLM's own limit must be kept above it
        self._trim_to: int | None = None  # drafts a request, where they are trimmed by us
        self._gate = ""  # the attribute that limits admission
        self._table: list[int] | None = None  # drafts by batch size, where given at launch
        self._seqs = self._seqs_dial()
        self._tokens = self._tokens_dial()
        self._drafts = self._drafts_dial()
        dials = [dial for dial in (self._seqs, self._tokens, self._drafts) if dial is not None]
        parallel = getattr(scheduler.vllm_config, "parallel_config", None)
        ranks = getattr(parallel, "data_parallel_size", 1)
        if _is_count(ranks) and ranks > 1:
            for dial in dials:
                mine = f"this data-parallel rank alone, one of {ranks}"
                dial.note = f"{dial.note}; {mine}" if dial.note else mine
        self.desk = Desk("vllm", version, os.getpid(), dials, self._counts)

    # What there is.

    def _seqs_dial(self) -> Dial | None:
        """Admission into the running batch.

        0.31 and later have a gate of their own for that. Before it, the gate is also the limit that
        schedule() asserts at its end, so it must never fall below what is running (see _hold).
        """
        gate = self._first_count("max_num_active_reqs", "max_num_running_reqs")
        if gate is None or not isinstance(getattr(self._scheduler, "running", None), list):
            return None
        self._gate = gate
        launch = self._remember(gate)
        slots = self._first_count("max_num_running_reqs") or gate
        most = max(launch, getattr(self._scheduler, slots))
        return Dial(
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
            return "this scheduler's preemption takes something llmtop does not know"
        if getattr(scheduler, "connector", None) is not None:
            return "a KV connector still counts on the blocks of running requests"
        if getattr(scheduler, "use_v2_model_runner", False) and not hasattr(
            scheduler, "reset_preempted_req_ids"
        ):
            # Before this set came (after 0.24, by 0.26) the workers were told only of preemptions
            # from inside schedule(), and model runner V2 would keep the slots of ours for ever.
            return "this version does not tell its workers of preemptions from outside"
        return None

    def _tokens_dial(self) -> Dial | None:
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
        return Dial(
            "max_num_batched_tokens",
            launch,
            min(least, launch),
            launch,
            UP_TO_LAUNCH,
            rest if flag != launch else None,
        )

    def _drafts_dial(self) -> Dial | None:
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
            note = "the drafter goes on proposing, so its own cost stays; what is above is dropped"
        return Dial("num_speculative_tokens", launch, 0, launch, UP_TO_LAUNCH, note)

    def _first_count(self, *names: str) -> str | None:
        return next((n for n in names if _is_count(getattr(self._scheduler, n, None))), None)

    def _remember(self, name: str) -> Any:
        self._launch[name] = getattr(self._scheduler, name)
        return self._launch[name]

    def _counts(self) -> tuple[int, int]:
        counts = getattr(self._scheduler, "get_request_counts", None)
        if counts is not None:
            running, waiting = counts()
            return int(running), int(waiting)
        return len(self._scheduler.running), len(self._scheduler.waiting)

    # What is done about it, at the head of schedule().

    def step(self) -> None:
        """Put waiting changes into force, and hold up those that need it at each step. The guard.

        Exception, not BaseException: SystemExit is how vLLM's own signal handler ends the engine.
        """
        if self._broken:
            return
        orders: list[Order] = []
        try:
            orders = self.desk.take()
            self._apply(orders)
            again = self._hold()
            self.desk.settle(orders, again)
        except Exception as error:
            self._let_go(error, orders)

    def _apply(self, orders: list[Order]) -> None:
        scheduler = self._scheduler
        evict: Order | None = None
        for order in orders:
            if order.dial is self._seqs:
                setattr(scheduler, self._gate, order.to)
                below = self._gate == "max_num_running_reqs" and order.to < order.dial.launch
                self._cap = order.to if below else None
                evict = order if order.evict else None
            elif order.dial is self._tokens:
                scheduler.max_num_scheduled_tokens = order.to
            elif self._table is not None:
                scheduler.dynamic_sd_lookup = [min(n, order.to) for n in self._table]
            else:
                self._trim_to = order.to if order.to < order.dial.launch else None
        if evict is not None:
            self._evict(evict)

    def _evict(self, order: Order) -> None:
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
                if request.status == status:  # nothing had happened yet: it goes on running
                    running.insert(victim, request)
                raise
            order.evicted += 1

    def _hold(self) -> bool:
        """What must be done anew at each step; whether there is any such thing."""
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

    def _let_go(self, error: Exception, orders: list[Order]) -> None:
        """The guard: launch values back, and never again. The engine goes on as vLLM made it."""
        self._broken = True
        for name, value in self._launch.items():
            try:
                setattr(self._scheduler, name, value)
            except Exception:
                self._log.exception("llmtop: could not restore %s", name)
        try:
            reason = f"{type(error).__name__} in llmtop's part of schedule(): {error}"
            self.desk.disable(reason, orders)
            self._log.error("llmtop: live options are off, launch values restored", exc_info=error)
        except Exception:
            self.desk.attention = False


def _precedence(request: Any) -> tuple[Any, Any]:
    return request.priority, request.arrival_time


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _count(holder: Any, name: str) -> int:
    value = getattr(holder, name, 0)
    return value if _is_count(value) else 0
