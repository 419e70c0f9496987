"""The live options of SGLang's scheduler: which ones it has, how they change between batches."""

from __future__ import annotations

import copy
import logging
import math
import os
from typing import Any

from llmtop_live.tunables import ChangeRequest, TunableOption, Tunables

from llmtop_sglang.admission_policy import Conservativeness, QueueOrder
from llmtop_sglang.native_options import NativeOptions
from llmtop_sglang.ranks import NATIVE_ENDPOINT, Ranks

UP_TO_LAUNCH = "live, up to the launch value"
DRAINS = "drains"

# A key of SGLang's own that changes live. It limits running requests also without pipeline
# parallelism.
CAP_KEY = "pp_max_micro_batch_size"
# Keys that the plugin adds to the internal state of a rank:
RANK_KEY = "llmtop_rank"  # its data-parallel rank
OFFERED_KEY = "llmtop_live"  # the options that the plugin accepts by NATIVE_ENDPOINT
DESCRIBED_KEY = "llmtop_options"  # descriptions of those that SGLang itself does not report


class SchedulerControl:
    """Sets values of one scheduler. version: of SGLang.

    Its methods run on the scheduler's thread, but _counts runs on socket threads.
    """

    def __init__(self, scheduler: Any, version: str, log: logging.Logger, ranks: Ranks) -> None:
        self._rank = ranks.data
        self._scheduler = scheduler
        self._log = log
        self._setting = False
        self._native = NativeOptions(scheduler)
        self._chunk_multiple = _chunk_multiple(scheduler)
        obstacle = ranks.obstacle
        self._cap_now = self._reported_cap()
        self._cap = None if obstacle else self._cap_option()
        self._chunk = self._chunk_option()
        self._prefill = self._prefill_option()
        self._order = QueueOrder(scheduler, ranks.lockstep_ranks)
        self._reserve = Conservativeness(scheduler)
        self._policy = self._order.option()
        self._conservativeness = self._reserve.option()
        # Pipeline stages process a request one after the other, in different rounds.
        self._lockstep = bool(obstacle) and ranks.stages == 1
        options = [option for option in self._offered() if not obstacle]
        self.tunables = Tunables(
            "sglang", version, os.getpid(), options, self._counts, rank=ranks.data
        )
        if obstacle:
            self.tunables.disable(obstacle)

    def cap(self) -> int:
        """How many requests may run now."""
        if self._cap is not None:
            return self._cap.value
        most = getattr(self._scheduler, "max_running_requests", 0)
        return self._cap_now if self._cap_now is not None else most if _is_count(most) else 0

    # Which options this scheduler has.

    def _offered(self) -> list[TunableOption]:
        found = (self._cap, self._chunk, self._prefill, self._policy, self._conservativeness)
        return [option for option in found if option is not None]

    def _lockstep_options(self) -> list[TunableOption]:
        """The options that all ranks change in the same round, by SGLang's endpoint."""
        return [option for option in self._offered() if option is not self._cap]

    def _cap_option(self) -> TunableOption | None:
        """The limit of running requests, by SGLang's own key."""
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
            cannot_evict="SGLang can retract all running requests or none",
        )

    def _chunk_option(self) -> TunableOption | None:
        """The longest chunk of a prompt in one batch."""
        scheduler = self._scheduler
        launch = getattr(scheduler, "chunked_prefill_size", None)
        # None: prefill was not chunked at launch, so buffers have no size for it. Diffusion models
        # use blocks instead.
        if not _is_count(launch) or getattr(scheduler, "dllm_config", None) is not None:
            return None
        multiple = self._chunk_multiple
        least = min(multiple + self._decode_tokens(), launch)
        note = f"rounded down to a multiple of {multiple}" if multiple > 1 else None
        return TunableOption("chunked_prefill_size", launch, least, launch, UP_TO_LAUNCH, note)

    def _prefill_option(self) -> TunableOption | None:
        """Prompt tokens of one batch, over all its requests."""
        launch = getattr(self._scheduler, "max_prefill_tokens", None)
        if not _is_count(launch):
            return None
        least = min(self._chunk_multiple + self._decode_tokens(), launch)
        note = "the first request of a batch may be larger, unless its prompt is chunked"
        return TunableOption("max_prefill_tokens", launch, least, launch, UP_TO_LAUNCH, note)

    def _decode_tokens(self) -> int:
        """The most tokens that decoding takes from the prefill budget; 0 without mixed batches.

        With a budget that decoding alone can use up, prompts would wait until it ends.
        """
        if not getattr(self._scheduler, "is_mixed_chunk", False):
            return 0
        most = getattr(self._scheduler, "max_running_requests", 0)
        return most if _is_count(most) else 0

    def _reported_cap(self) -> int | None:
        """The cap in force as SGLang reports it: the attribute differs between versions."""
        from sglang.srt.managers.io_struct import GetInternalStateReq

        state = self._scheduler.get_internal_state(GetInternalStateReq()).internal_state
        value = state.get(CAP_KEY)
        return value if _is_count(value) and value > 0 else None

    def _counts(self) -> tuple[int, int]:
        return len(self._scheduler.running_batch.reqs), len(self._scheduler.waiting_queue)

    # How changes are applied, between two batches.

    def step(self) -> None:
        """Apply waiting changes. Never raises: this is the guard.

        It catches Exception, not BaseException: SystemExit must end the engine.
        """
        changes: list[ChangeRequest] = []
        try:
            changes = self.tunables.take()
            for change in changes:
                change.to = self._rounded(change.option, change.to)
                self._apply(change.option, change.to)
            self.tunables.settle(changes, False)
        except Exception as error:
            self._disable(error, changes)

    def _rounded(self, option: TunableOption, to: int) -> int:
        if option is not self._chunk or to == option.launch:
            return to
        return max(to // self._chunk_multiple, 1) * self._chunk_multiple

    def _apply(self, option: TunableOption, to: int) -> None:
        if option is self._cap:
            self._set_native(CAP_KEY, to)
            # SGLang keeps this flag until a request leaves the batch. A raised cap makes room, so
            # waiting requests need not wait for that.
            self._scheduler.running_batch.batch_is_full = False
        elif self._native.takes(option.name):
            self._set_native(option.name, self._value(option, to))
        elif option is self._chunk:
            self._scheduler.chunked_prefill_size = to
        elif option is self._policy:
            self._order.apply(option.choices[to])
        elif option is self._conservativeness:
            self._reserve.apply(to)
        else:
            self._scheduler.max_prefill_tokens = to

    def _set_native(self, key: str, value: Any) -> None:
        self._setting = True
        try:
            self._native.set(key, value)
        finally:
            self._setting = False

    @staticmethod
    def _value(option: TunableOption, number: int) -> Any:
        """SGLang's value for a number of the protocol."""
        if option.choices:
            return option.choices[number]
        return number / option.parts if option.parts > 1 else number

    @staticmethod
    def _number(option: TunableOption, value: Any) -> int | None:
        """The protocol's number for a value of SGLang; None if the option has no such value."""
        if option.choices:
            return option.choices.index(value) if value in option.choices else None
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return round(value * option.parts)
        return None

    # Changes on several ranks.

    def apply_on_every_rank(self, request: Any) -> Any:
        """Apply values that SGLang sent to all ranks in this round.

        Returns the same request without values, which SGLang then answers; None if SGLang must
        handle the request itself.

        The decision does not depend on the state of one rank, so all ranks apply the values or
        none does. They are in force on every rank before this round makes its batch.
        """
        if not self._lockstep:
            return None
        try:
            wanted = request.server_args
            options = {option.name: option for option in self._lockstep_options()}
            if not wanted or any(name not in options for name in wanted):
                return None
            if all(self._native.takes(name) for name in wanted):
                return None
            for name, to in wanted.items():
                objection = options[name].objection(to, False)
                if objection is None and self._rounded(options[name], to) != to:
                    objection = f"must be a multiple of {self._chunk_multiple}"
                if objection is not None:
                    self._log.warning("llmtop: %s=%s: %s", name, to, objection)
                    return None
            rest = copy.copy(request)
            rest.server_args = {}
        except Exception:
            self._log.exception("llmtop: could not read a change by %s", NATIVE_ENDPOINT)
            return None
        for name, to in wanted.items():
            self._apply(options[name], to)
            options[name].value = to
            self._log.info("llmtop: %s -> %s on this rank", name, to)
        return rest

    def report_values(self, answer: Any) -> None:
        """Add the values in force to the internal state that this rank reports."""
        if not self._lockstep:
            return
        try:
            options, described = self._lockstep_options(), {}
            for option in options:
                if option in (self._chunk, self._prefill):
                    answer.internal_state[option.name] = getattr(self._scheduler, option.name)
                else:
                    answer.internal_state[option.name] = option.value
                    described[option.name] = option.described()
            answer.internal_state[RANK_KEY] = self._rank
            answer.internal_state[OFFERED_KEY] = [option.name for option in options]
            if described:
                answer.internal_state[DESCRIBED_KEY] = described
        except Exception:
            self._log.exception("llmtop: could not report the options")

    def after_native_change(self, request: Any, answer: Any) -> None:
        """Another program used SGLang's endpoint: update the values that the socket reports."""
        if self._setting:
            return
        try:
            if not answer.updated:
                return
            changes: dict[str, int] = {}
            if CAP_KEY in request.server_args:
                # 0.5.12 answers "updated" also after a refusal, so use the values that it reports.
                self._cap_now = cap = self._reported_cap()
                if cap is not None and self._cap is not None:
                    changes[self._cap.name] = cap
            for option in self._lockstep_options():
                if self._native.takes(option.name) and option.name in request.server_args:
                    number = self._number(option, request.server_args[option.name])
                    if number is not None:
                        changes[option.name] = number
            if changes:
                self.tunables.submit(changes, False, NATIVE_ENDPOINT, 0.0)
        except Exception:
            self._log.exception("llmtop: could not read a change by %s", NATIVE_ENDPOINT)

    def _disable(self, error: Exception, changes: list[ChangeRequest]) -> None:
        """The guard: restore the launch values and stop permanently. The engine continues."""
        for option in self._offered():
            try:
                self._apply_launch(option)
            except Exception:
                self._log.exception("llmtop: could not restore %s", option.name)
        try:
            reason = f"{type(error).__name__} in llmtop's part of the scheduler: {error}"
            self.tunables.disable(reason, changes)
            # A warning, not an error: the engine continues. If it ends later, the cause is another.
            self._log.warning(
                "llmtop: live options are off, launch values restored", exc_info=error
            )
        except Exception:
            self.tunables.attention = False

    def _apply_launch(self, option: TunableOption) -> None:
        # Does not use _apply, because _apply may be what failed.
        if option is self._cap:
            self._set_native(CAP_KEY, option.launch)
            self._scheduler.running_batch.batch_is_full = False
        elif self._native.takes(option.name):
            self._set_native(option.name, self._value(option, option.launch))
        elif option is self._chunk:
            self._scheduler.chunked_prefill_size = option.launch
        elif option is self._policy:
            self._order.restore()
        elif option is self._conservativeness:
            self._reserve.restore()
        else:
            self._scheduler.max_prefill_tokens = option.launch


def _chunk_multiple(scheduler: Any) -> int:
    """Tokens of which a chunk is a multiple: whole pages, and the alignment of some kernels.

    SGLang rounds a chunk down to it. If the result were 0, the request would wait forever.
    """
    sizes = (getattr(scheduler, name, 1) for name in ("page_size", "truncation_align_size"))
    return math.lcm(*(size for size in sizes if _is_count(size) and size > 0))


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
