"""What is changed in SGLang's scheduler, and how: found by looking, done between two batches."""

from __future__ import annotations

import copy
import logging
import math
import os
from typing import Any

from llmtop_live.tunables import ChangeRequest, TunableOption, Tunables

from llmtop_sglang.admission_policy import Conservativeness, QueueOrder
from llmtop_sglang.own_door import OwnDoor
from llmtop_sglang.ranks import OWN_WAY, Ranks

UP_TO_LAUNCH = "live, up to the launch value"
DRAINS = "drains"

# SGLang's own live key, which limits admission also without pipeline parallelism: its scheduler
# admits as many requests as this leaves room for beside those that run.
CAP_KEY = "pp_max_micro_batch_size"
RANK_KEY = "llmtop_rank"  # in the same: which data-parallel rank it is
TOLD_KEY = "llmtop_live"  # in what a rank tells of itself: our options that OWN_WAY takes
DESCRIBED_KEY = "llmtop_options"  # of these, what SGLang itself does not tell


class SchedulerControl:
    """The values of one scheduler that we set, and how.

    Its methods run on the scheduler's thread, _counts on the socket's.
    """

    def __init__(self, scheduler: Any, version: str, log: logging.Logger, ranks: Ranks) -> None:
        self._rank = ranks.data
        self._scheduler = scheduler
        self._log = log
        self._setting = False
        self._door = OwnDoor(scheduler)
        self._grid = _grid(scheduler)
        obstacle = ranks.obstacle
        self._cap_now = self._reported_cap()
        self._cap = None if obstacle else self._cap_option()
        self._chunk = self._chunk_option()
        self._prefill = self._prefill_option()
        self._order = QueueOrder(scheduler, ranks.together)
        self._reserve = Conservativeness(scheduler)
        self._policy = self._order.option()
        self._conservativeness = self._reserve.option()
        # A pipeline's stages take a request one after the other, each in a round of its own.
        self._alike = bool(obstacle) and ranks.stages == 1
        options = [option for option in self._offered() if not obstacle]
        self.tunables = Tunables(
            "sglang", version, os.getpid(), options, self._counts, rank=ranks.data
        )
        if obstacle:
            self.tunables.disable(obstacle)

    def cap(self) -> int:
        """How many requests may run at once, now."""
        if self._cap is not None:
            return self._cap.value
        most = getattr(self._scheduler, "max_running_requests", 0)
        return self._cap_now if self._cap_now is not None else most if _is_count(most) else 0

    # What there is.

    def _offered(self) -> list[TunableOption]:
        found = (self._cap, self._chunk, self._prefill, self._policy, self._conservativeness)
        return [option for option in found if option is not None]

    def _everywhere(self) -> list[TunableOption]:
        """What all ranks take in the same round, when SGLang brings it to them."""
        return [option for option in self._offered() if option is not self._cap]

    def _cap_option(self) -> TunableOption | None:
        """Admission into the running batch, by SGLang's own key."""
        most = getattr(self._scheduler, "max_running_requests", None)
        launch = self._cap_now
        if not _is_count(most) or launch is None:
            return None
        return TunableOption(
            "max_running_requests",
            launch,
            1,
            max(launch, most),
            DRAINS,
            "requests above a lower limit finish; no new ones are admitted meanwhile",
            cannot_evict="SGLang can put back all running requests or none",
        )

    def _chunk_option(self) -> TunableOption | None:
        """The largest piece of a prompt that one batch computes."""
        scheduler = self._scheduler
        launch = getattr(scheduler, "chunked_prefill_size", None)
        # None: not chunked at launch, so nothing is sized for it. Diffusion models have blocks.
        if not _is_count(launch) or getattr(scheduler, "dllm_config", None) is not None:
            return None
        least = min(self._grid + self._mixed(), launch)
        note = f"rounded down to a multiple of {self._grid}" if self._grid > 1 else None
        return TunableOption("chunked_prefill_size", launch, least, launch, UP_TO_LAUNCH, note)

    def _prefill_option(self) -> TunableOption | None:
        """Prompt tokens of one batch, over all its requests."""
        launch = getattr(self._scheduler, "max_prefill_tokens", None)
        if not _is_count(launch):
            return None
        least = min(self._grid + self._mixed(), launch)
        note = "the first request of a batch may be larger, unless its prompt is chunked"
        return TunableOption("max_prefill_tokens", launch, least, launch, UP_TO_LAUNCH, note)

    def _mixed(self) -> int:
        """Tokens that decoding takes out of a prefill's budget, where batches are mixed.

        A budget that decoding alone can use up would leave prompts waiting for as long as it does.
        """
        if not getattr(self._scheduler, "is_mixed_chunk", False):
            return 0
        most = getattr(self._scheduler, "max_running_requests", 0)
        return most if _is_count(most) else 0

    def _reported_cap(self) -> int | None:
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
        orders: list[ChangeRequest] = []
        try:
            orders = self.tunables.take()
            for order in orders:
                order.to = self._rounded(order.option, order.to)
                self._apply(order.option, order.to)
            self.tunables.settle(orders, False)
        except Exception as error:
            self._disable(error, orders)

    def _rounded(self, option: TunableOption, to: int) -> int:
        if option is not self._chunk or to == option.launch:
            return to
        return max(to // self._grid, 1) * self._grid

    def _apply(self, option: TunableOption, to: int) -> None:
        if option is self._cap:
            self._set_own(CAP_KEY, to)
            # It remembers that the batch was full until a request leaves it: under a raised cap
            # that is no longer so, and waiting ones need not wait for that.
            self._scheduler.running_batch.batch_is_full = False
        elif self._door.takes(option.name):
            self._set_own(option.name, self._value(option, to))
        elif option is self._chunk:
            self._scheduler.chunked_prefill_size = to
        elif option is self._policy:
            self._order.apply(option.choices[to])
        elif option is self._conservativeness:
            self._reserve.apply(to)
        else:
            self._scheduler.max_prefill_tokens = to

    def _set_own(self, key: str, value: Any) -> None:
        self._setting = True
        try:
            self._door.set(key, value)
        finally:
            self._setting = False

    @staticmethod
    def _value(option: TunableOption, number: int) -> Any:
        """A value as SGLang has it."""
        if option.choices:
            return option.choices[number]
        return number / option.parts if option.parts > 1 else number

    @staticmethod
    def _number(option: TunableOption, value: Any) -> int | None:
        """The number of a value of SGLang's; None where it is none of ours."""
        if option.choices:
            return option.choices.index(value) if value in option.choices else None
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return round(value * option.parts)
        return None

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
            options = {option.name: option for option in self._everywhere()}
            if not wanted or any(name not in options for name in wanted):
                return None
            if all(self._door.takes(name) for name in wanted):
                return None
            for name, to in wanted.items():
                objection = options[name].objection(to, False)
                if objection is None and self._rounded(options[name], to) != to:
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
            self._apply(options[name], to)
            options[name].value = to
            self._log.info("llmtop: %s -> %s on this rank", name, to)
        return rest

    def report_values(self, answer: Any) -> None:
        """Put the values in force into what this rank reports."""
        if not self._alike:
            return
        try:
            options, described = self._everywhere(), {}
            for option in options:
                if option in (self._chunk, self._prefill):
                    answer.internal_state[option.name] = getattr(self._scheduler, option.name)
                else:
                    answer.internal_state[option.name] = option.value
                    described[option.name] = option.described()
            answer.internal_state[RANK_KEY] = self._rank
            answer.internal_state[TOLD_KEY] = [option.name for option in options]
            if described:
                answer.internal_state[DESCRIBED_KEY] = described
        except Exception:
            self._log.exception("llmtop: the options could not be told")

    def after_foreign_change(self, request: Any, answer: Any) -> None:
        """Somebody set something through SGLang's own endpoint: make ours say so too."""
        if self._setting:
            return
        try:
            if not answer.updated:
                return
            changes: dict[str, int] = {}
            if CAP_KEY in request.server_args:
                # 0.5.12 answers "updated" also after a refusal, so use the values that it reports.
                self._cap_now = told = self._reported_cap()
                if told is not None and self._cap is not None:
                    changes[self._cap.name] = told
            for option in self._everywhere():
                if self._door.takes(option.name) and option.name in request.server_args:
                    number = self._number(option, request.server_args[option.name])
                    if number is not None:
                        changes[option.name] = number
            if changes:
                self.tunables.submit(changes, False, OWN_WAY, 0.0)
        except Exception:
            self._log.exception("llmtop: a change by %s was not understood", OWN_WAY)

    def _disable(self, error: Exception, orders: list[ChangeRequest]) -> None:
        """The guard: launch values back, and never again. The engine runs on as it was started."""
        for option in self._offered():
            try:
                self._apply_launch(option)
            except Exception:
                self._log.exception("llmtop: could not restore %s", option.name)
        try:
            reason = f"{type(error).__name__} in llmtop's part of the scheduler: {error}"
            self.tunables.disable(reason, orders)
            # A warning: the engine keeps running. What ends it later has another cause.
            self._log.warning(
                "llmtop: live options are off, launch values restored", exc_info=error
            )
        except Exception:
            self.tunables.attention = False

    def _apply_launch(self, option: TunableOption) -> None:
        # Apart from _apply, which may be what failed.
        if option is self._cap:
            self._set_own(CAP_KEY, option.launch)
            self._scheduler.running_batch.batch_is_full = False
        elif self._door.takes(option.name):
            self._set_own(option.name, self._value(option, option.launch))
        elif option is self._chunk:
            self._scheduler.chunked_prefill_size = option.launch
        elif option is self._policy:
            self._order.restore()
        elif option is self._conservativeness:
            self._reserve.restore()
        else:
            self._scheduler.max_prefill_tokens = option.launch


def _grid(scheduler: Any) -> int:
    """What a piece of a prompt is a multiple of: whole pages, and what some kernels ask for.

    SGLang cuts a piece down to that; were nothing left of it, its request would wait for ever.
    """
    sizes = (getattr(scheduler, name, 1) for name in ("page_size", "truncation_align_size"))
    return math.lcm(*(size for size in sizes if _is_count(size) and size > 0))


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
