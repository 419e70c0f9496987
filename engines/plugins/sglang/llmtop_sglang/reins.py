"""What is changed in SGLang's scheduler, and how: found by looking, done between two batches."""

from __future__ import annotations

import copy
import logging
import math
import os
from typing import Any

from llmtop_live.desk import Desk, Dial, Order

UP_TO_LAUNCH = "live, up to the launch value"
DRAINS = "drains"

# SGLang's own live key, which limits admission also without pipeline parallelism: its scheduler
# admits as many requests as this leaves room for beside those that run.
CAP_KEY = "pp_max_micro_batch_size"
OWN_WAY = "/set_internal_state"
TOLD_KEY = "llmtop_live"  # in what a rank tells of itself: our options that OWN_WAY takes


class Reins:
    """The values of one scheduler that we set, and how.

    Its methods run on the scheduler's thread, _counts on the socket's.
    """

    def __init__(self, scheduler: Any, version: str, log: logging.Logger) -> None:
        self._scheduler = scheduler
        self._log = log
        self._setting = False
        self._grid = _grid(scheduler)
        obstacle = _obstacle(scheduler.server_args)
        self._cap = None if obstacle else self._cap_dial()
        self._chunk = self._chunk_dial()
        self._prefill = self._prefill_dial()
        # A pipeline's stages take a request one after the other, each in a round of its own.
        stages = getattr(scheduler.server_args, "pp_size", 1)
        self._alike = bool(obstacle) and not (_is_count(stages) and stages > 1)
        dials = [
            dial
            for dial in (self._cap, self._chunk, self._prefill)
            if dial is not None and not obstacle
        ]
        self.desk = Desk("sglang", version, os.getpid(), dials, self._counts)
        if obstacle:
            self.desk.disable(obstacle)

    # What there is.

    def _cap_dial(self) -> Dial | None:
        """Admission into the running batch, by SGLang's own key."""
        most = getattr(self._scheduler, "max_running_requests", None)
        launch = self._told_cap()
        if not _is_count(most) or launch is None:
            return None
        return Dial(
            "max_running_requests",
            launch,
            1,
            max(launch, most),
            DRAINS,
            "those above a lower limit finish; none is admitted meanwhile",
            cannot_evict="SGLang can put back all running requests or none",
        )

    def _chunk_dial(self) -> Dial | None:
        """The largest piece of a prompt that one batch computes."""
        scheduler = self._scheduler
        launch = getattr(scheduler, "chunked_prefill_size", None)
        # None: not chunked at launch, so nothing is sized for it. Diffusion models have blocks.
        if not _is_count(launch) or getattr(scheduler, "dllm_config", None) is not None:
            return None
        least = min(self._grid + self._mixed(), launch)
        note = f"rounded down to a multiple of {self._grid}" if self._grid > 1 else None
        return Dial("chunked_prefill_size", launch, least, launch, UP_TO_LAUNCH, note)

    def _prefill_dial(self) -> Dial | None:
        """Prompt tokens of one batch, over all its requests."""
        launch = getattr(self._scheduler, "max_prefill_tokens", None)
        if not _is_count(launch):
            return None
        least = min(self._grid + self._mixed(), launch)
        note = "the first request of a batch may be larger, unless its prompt is chunked"
        return Dial("max_prefill_tokens", launch, least, launch, UP_TO_LAUNCH, note)

    def _mixed(self) -> int:
        """Tokens that decoding takes out of a prefill's budget, where batches are mixed.

        A budget that decoding alone can use up would leave prompts waiting for as long as it does.
        """
        if not getattr(self._scheduler, "is_mixed_chunk", False):
            return 0
        most = getattr(self._scheduler, "max_running_requests", 0)
        return most if _is_count(most) else 0

    def _told_cap(self) -> int | None:
        """The cap in force, by SGLang's own account: where it is kept moved with the versions."""
        from sglang.srt.managers.io_struct import GetInternalStateReq

        told = self._scheduler.get_internal_state(GetInternalStateReq()).internal_state
        value = told.get(CAP_KEY)
        return value if _is_count(value) and value > 0 else None

    def _counts(self) -> tuple[int, int]:
        return len(self._scheduler.running_batch.reqs), len(self._scheduler.waiting_queue)

    # What is done about it, between two batches.

    def step(self) -> None:
        """Put waiting changes into force. The guard.

        Exception, not BaseException: SystemExit must end the engine as it always does.
        """
        orders: list[Order] = []
        try:
            orders = self.desk.take()
            for order in orders:
                order.to = self._rounded(order.dial, order.to)
                self._apply(order.dial, order.to)
            self.desk.settle(orders, False)
        except Exception as error:
            self._let_go(error, orders)

    def _rounded(self, dial: Dial, to: int) -> int:
        if dial is not self._chunk or to == dial.launch:
            return to
        return max(to // self._grid, 1) * self._grid

    def _apply(self, dial: Dial, to: int) -> None:
        if dial is self._cap:
            self._set_cap(to)
        elif dial is self._chunk:
            self._scheduler.chunked_prefill_size = to
        else:
            self._scheduler.max_prefill_tokens = to

    def _set_cap(self, to: int) -> None:
        from sglang.srt.managers.io_struct import SetInternalStateReq

        self._setting = True
        try:
            answer = self._scheduler.set_internal_state(
                SetInternalStateReq(server_args={CAP_KEY: to})
            )
        finally:
            self._setting = False
        if not answer.updated:
            raise RuntimeError(f"SGLang refused {CAP_KEY}={to}")
        # It remembers that the batch was full until a request leaves it: under a raised cap that
        # is no longer so, and waiting ones need not wait for that.
        self._scheduler.running_batch.batch_is_full = False

    # The way of several ranks.

    def take_on_every_rank(self, request: Any) -> Any:
        """Take values that SGLang brought to all ranks in this round; None: it is SGLang's to say.

        Else what is left for SGLang to answer: the same request, for nothing.

        Nothing here depends on one rank's own state, so all ranks take it or none does. It is in
        force before this round makes its batch, on every rank.
        """
        if not self._alike:
            return None
        try:
            wanted = request.server_args
            dials = {d.name: d for d in (self._chunk, self._prefill) if d is not None}
            if not wanted or any(name not in dials for name in wanted):
                return None
            for name, to in wanted.items():
                objection = dials[name].objection(to, False)
                if objection is None and self._rounded(dials[name], to) != to:
                    objection = f"must be a multiple of {self._grid}"
                if objection is not None:
                    self._log.warning("llmtop: %s=%s: %s", name, to, objection)
                    return None
            rest = copy.copy(request)
            rest.server_args = {}
        except Exception:
            self._log.exception("llmtop: a change by %s was not understood", OWN_WAY)
            return None
        for name, to in wanted.items():
            self._apply(dials[name], to)
            dials[name].value = to
            self._log.info("llmtop: %s -> %s on this rank", name, to)
        return rest

    def tell(self, answer: Any) -> None:
        """Put the values in force into what this rank tells of itself."""
        if not self._alike:
            return
        try:
            dials = [dial for dial in (self._chunk, self._prefill) if dial is not None]
            for dial in dials:
                answer.internal_state[dial.name] = getattr(self._scheduler, dial.name)
            answer.internal_state[TOLD_KEY] = [dial.name for dial in dials]
        except Exception:
            self._log.exception("llmtop: the options could not be told")

    def overheard(self, request: Any, answer: Any) -> None:
        """Somebody set something through SGLang's own endpoint: make ours say so too."""
        if self._setting or self._cap is None:
            return
        try:
            to = request.server_args.get(CAP_KEY)
            if to is not None and answer.updated:
                # 0.5.12 says "updated" also when it refused, so what holds is what it tells.
                told = self._told_cap()
                if told is not None:
                    self.desk.submit({self._cap.name: told}, False, OWN_WAY, 0.0)
        except Exception:
            self._log.exception("llmtop: a change by %s was not understood", OWN_WAY)

    def _let_go(self, error: Exception, orders: list[Order]) -> None:
        """The guard: launch values back, and never again. The engine goes on as it was started."""
        for dial in (self._cap, self._chunk, self._prefill):
            try:
                if dial is not None:
                    self._apply_launch(dial)
            except Exception:
                self._log.exception("llmtop: could not restore %s", dial.name if dial else "")
        try:
            reason = f"{type(error).__name__} in llmtop's part of the scheduler: {error}"
            self.desk.disable(reason, orders)
            self._log.error("llmtop: live options are off, launch values restored", exc_info=error)
        except Exception:
            self.desk.attention = False

    def _apply_launch(self, dial: Dial) -> None:
        # Apart from _apply, which may be what failed.
        if dial is self._cap:
            self._set_cap(dial.launch)
        elif dial is self._chunk:
            self._scheduler.chunked_prefill_size = dial.launch
        else:
            self._scheduler.max_prefill_tokens = dial.launch


def _obstacle(args: Any) -> str | None:
    """Why nothing can be changed from inside, or None.

    Ranks that schedule must do so alike, or they wait for each other for ever: a value would have
    to reach all of them in the same round. SGLang's own endpoint does that, our socket does not.
    """
    for size, words in (("tp_size", "tensor"), ("pp_size", "pipeline"), ("dp_size", "data")):
        ranks = getattr(args, size, 1)
        if _is_count(ranks) and ranks > 1:
            return f"{words} parallel over {ranks} ranks: only {OWN_WAY} reaches all of them"
    return None


def _grid(scheduler: Any) -> int:
    """What a piece of a prompt is a multiple of: whole pages, and what some kernels ask for.

    SGLang cuts a piece down to that; were nothing left of it, its request would wait for ever.
    """
    sizes = (getattr(scheduler, name, 1) for name in ("page_size", "truncation_align_size"))
    return math.lcm(*(size for size in sizes if _is_count(size) and size > 0))


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
