"""Applies two settings (arms A and B) of one engine in turn: live if possible, else by a restart.

Each start uses the engine's original configuration with the options of one arm, so that no option
of one arm remains in the other. Earlier live changes are applied again after each start. At the end
the original state is restored, with a restart if necessary.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

from msgspec import Struct, field

from llmtop import LlmtopError, UsageError
from llmtop.engines.core.options import Applies, Option, OptionValue
from llmtop.engines.state.temporary_changes import Purpose
from llmtop.engines.supervision.restart import READY_TIMEOUT_S, OnPhase, Wanted, restart
from llmtop.engines.tuning import resolution
from llmtop.wording.sentences import value_words

if TYPE_CHECKING:
    from llmtop.engines.core.endpoint import Endpoint
    from llmtop.engines.core.records import EngineRecord, LaunchSpec
    from llmtop.engines.supervision.launch_context import LaunchContext
    from llmtop.operations.session import EngineSession
    from llmtop.operations.wiring import Wiring

ARMS = ("A", "B")
WORK = "compare"
SIDE_BY_SIDE = "compare two engines that run side by side: llmtop compare URL_A URL_B"
Settings = dict[str, OptionValue]


class DidNotStart(LlmtopError):
    """The engine does not start with an arm's options. It runs with its original ones again."""


class Variant(Struct, frozen=True):
    """One arm. name: A or B. live: the values that must be in force, by option name.

    launch: values that the engine must be started with; empty for both arms if both can be set
    live.
    """

    name: str
    live: Mapping[str, OptionValue] = field(default_factory=dict)
    launch: Mapping[str, OptionValue] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """``max_num_seqs=64,max_model_len=4096``."""
        return ",".join(f"{name}={value}" for name, value in self.live.items())


def parse_variants(
    options: Sequence[Option], asked: Mapping[str, Mapping[str, str]]
) -> tuple[dict[str, Variant], tuple[str, ...]]:
    """Parse option values as text, by arm. Returns the arms, and the reasons for restarts.

    An option that only one arm sets has its current value in the other. Raises UsageError for an
    unknown option, an invalid value, or equal arms.
    """
    wanted = {
        arm: {
            name: resolution.parse(resolution.find(options, name), text)
            for name, text in texts.items()
        }
        for arm, texts in asked.items()
    }
    names = [*dict.fromkeys(name for arm in ARMS for name in wanted[arm])]
    found = {name: resolution.find(options, name) for name in names}
    reasons: dict[str, str] = {}
    for arm in ARMS:
        for name, value in wanted[arm].items():
            option = found[name]
            if why := resolution.launch_refusal(option.spec, value):
                raise UsageError(why)
            if option.applies is Applies.RESTART:
                if value != option.value:
                    reasons[name] = f"{name} takes effect only at a restart"
            elif why := resolution.refusal(option, value):
                reasons[name] = why
    launch = {arm: {n: v for n, v in wanted[arm].items() if n in reasons} for arm in ARMS}
    if launch["A"] != launch["B"]:
        launch = wanted  # the engine is started anyway, so start it with all options of the arm
    arms = {
        arm: Variant(
            arm,
            {name: wanted[arm].get(name, found[name].value) for name in names},
            {n: v for n, v in launch[arm].items() if v != found[n].launch},
        )
        for arm in ARMS
    }
    if arms["A"].live == arms["B"].live:
        raise UsageError("A and B are the same", "give them different values")
    return arms, tuple(reasons.values())


class VariantSwitcher:
    """Applies A or B to one engine. Only ``apply`` and ``restore`` change the engine."""

    def __init__(
        self,
        runner: asyncio.Runner,
        wiring: Wiring,
        endpoint: Endpoint,
        options: Sequence[Option],
        arms: Mapping[str, Variant],
        reasons: Sequence[str],
        session: EngineSession,
    ) -> None:
        self._runner, self._wiring, self._session = runner, wiring, session
        self.arms, self.reasons, self.name = arms, tuple(reasons), endpoint.name
        # Values that were set live. A start loses them.
        self._before = {
            option.name: option.value
            for option in options
            if option.applies is not Applies.RESTART and option.value != option.launch
        }
        self._touched = {
            option.name: option.value
            for option in options
            if option.name in arms["A"].live and option.applies is not Applies.RESTART
        }
        # Launch values of all options that the start of an arm changes or loses.
        self._started = {
            option.name: option.launch
            for option in options
            if option.name in self._before
            or any(option.name in arm.launch for arm in arms.values())
        }
        self._record, self._version = endpoint.record, endpoint.version
        self._lost = False  # another user or program stopped or restarted it: leave it alone
        self._origin: LaunchContext | None = None
        self._specs: dict[str, LaunchSpec] = {}
        self._running: LaunchSpec | None = None
        if reasons and endpoint.record is not None:
            supervisor = wiring.supervisor
            self._origin = origin = supervisor.origin(endpoint.record)
            self._running = origin.spec
            for name, arm in arms.items():
                spec = Wanted(arm.launch).spec(supervisor.adapter(origin.spec), origin)
                supervisor.check(spec, origin)
                self._specs[name] = spec if arm.launch else origin.spec

    @classmethod
    def find(
        cls,
        runner: asyncio.Runner,
        wiring: Wiring,
        endpoint: Endpoint,
        asked: Mapping[str, Mapping[str, str]],
    ) -> VariantSwitcher:
        """Create the switcher for an engine. asked: option values as text, by arm.

        Raises UsageError for invalid values, or when the engine cannot be changed from here.
        """
        session = wiring.session(endpoint)
        try:
            options, why_not = runner.run(session.options())
            arms, reasons = parse_variants(options, asked)
            if reasons and endpoint.record is None:
                why = f"cannot be changed from here: {why_not}" if why_not else reasons[0]
                raise UsageError(f"{', '.join(arms['A'].live)} {why}", SIDE_BY_SIDE)
            return cls(runner, wiring, endpoint, options, arms, reasons, session)
        except BaseException:
            runner.run(session.close())
            raise

    @property
    def labels(self) -> tuple[str, str]:
        """The settings of A and B as text."""
        return self.arms["A"].label, self.arms["B"].label

    @property
    def startup_s(self) -> float | None:
        """Seconds that the last start took; None if unknown."""
        return self._wiring.supervisor.expected_startup_s(self._record) if self._record else None

    def starts(self, sequence: Iterable[str]) -> int:
        """The number of starts for runs in this order, including the restore at the end."""
        if self._origin is None:
            return 0
        running, count = self._running, 0
        for spec in (*(self._specs[arm] for arm in sequence), self._origin.spec):
            count += spec != running
            running = spec
        return count

    def starts_for(self, arm: str) -> bool:
        """Whether applying this arm restarts the engine."""
        return self._origin is not None and self._specs[arm] != self._running

    def apply(self, arm: str, on_phase: OnPhase | None = None) -> bool:
        """Apply an arm, and return whether the engine was started for it. Blocks.

        Raises DidNotStart when the engine does not start with the arm's options; it then runs with
        its original ones. Raises LlmtopError when a value is refused, or when another user or
        program has stopped or restarted the engine.
        """
        starts = self.starts_for(arm)
        if starts:
            self._restart(arm, on_phase)
        earlier = self._before if self._origin is not None else {}
        self._set({**earlier, **self.arms[arm].live}, lenient=self._origin is not None)
        return starts

    def restore(self, on_note: Callable[[str], None], on_phase: OnPhase | None = None) -> None:
        """Restore the original settings. Raises nothing: on_note receives what failed.

        The stop and the launch cannot be interrupted. During the start after them, Ctrl+C ends the
        wait, and the engine starts by itself.
        """
        if self._lost:
            return
        try:
            restarted = self._origin is not None
            if self._origin is not None and self._running != self._origin.spec:
                self._launch_again(self._origin, on_phase, on_note)
            before = {**self._before, **self._touched} if restarted else self._touched
            with undisturbed(on_note):
                self._set(before, lenient=restarted)
        except KeyboardInterrupt:
            on_note(f"{self.name} is being restored; `llmtop ps` shows it")
        except LlmtopError as error:
            # A note, not an error: it must not hide the result of the comparison or its error.
            on_note(f"llmtop: {error.message}: {self.name} was not restored")

    def close(self) -> None:
        """Close the sockets."""
        self._runner.run(self._session.close())

    def _restart(self, name: str, on_phase: OnPhase | None) -> None:
        assert self._origin is not None and self._record is not None
        spec, arm, temporary_changes = (
            self._specs[name],
            self.arms[name],
            self._wiring.temporary_changes,
        )
        self._require_unchanged()
        wanted = {**self._started, **arm.launch}
        purpose = Purpose(WORK, {**self._started, **self._before})
        temporary_changes.lend(self._record, purpose, wanted, start=arm.launch)
        self._running = None  # unknown from here on, even after an interrupt
        done = restart(self._wiring.supervisor, self._record, spec, self._origin, on_phase=on_phase)
        # Set the record first. Else, after an interrupt, the new process would look like that of
        # another program.
        self._record = done.record
        self._running = self._origin.spec if done.rolled_back else spec
        self._connect(done.record)
        temporary_changes.observe(done.record, self._started if done.rolled_back else wanted)
        if done.rolled_back:
            raise DidNotStart(
                f"{self.name} does not start with {arm.label}: {done.failure}", done.advice
            )

    def _launch_again(
        self, origin: LaunchContext, on_phase: OnPhase | None, on_note: Callable[[str], None]
    ) -> None:
        supervisor = self._wiring.supervisor
        if self._running is not None:
            self._require_unchanged()
        with undisturbed(on_note):
            supervisor.stop(supervisor.find(self.name))
            record = supervisor.launch(origin.spec, origin=origin)
            self._running = origin.spec
            self._wiring.temporary_changes.observe(record, self._started)
        self._connect(supervisor.wait_ready(record, READY_TIMEOUT_S, on_phase).record)

    def _require_unchanged(self) -> None:
        """Raise LlmtopError when another user or program has stopped or restarted the engine."""
        assert self._record is not None
        now = self._wiring.supervisor.find(self.name)
        if (now.pid, now.start_ticks) != (self._record.pid, self._record.start_ticks) or (
            now.stop_requested_at is not None
        ):
            self._lost = True
            raise LlmtopError(
                f"another user or program stopped or restarted {self.name}",
                "see `llmtop ps`",
            )

    def _connect(self, record: EngineRecord) -> None:
        """Replace the session by one with a new process of the engine."""
        if self._version and not record.version:
            record = self._wiring.supervisor.learn(record, self._version)
        self._record = record
        self._runner.run(self._session.close())
        self._session = self._wiring.session(self._wiring.of(record))

    def _set(self, wanted: Mapping[str, OptionValue], *, lenient: bool) -> None:
        """Set the options that have other values. lenient: skip those that cannot be set live,
        because a start has set them."""
        options, _ = self._runner.run(self._session.options())
        ask: Settings = {}
        for name, value in wanted.items():
            option = resolution.find(options, name)
            if option.is_everywhere(value):
                continue
            if not (lenient and resolution.refusal(option, value)):
                ask[name] = value
        if not ask:
            return
        purpose = Purpose(WORK, {**self._before, **self._touched})
        changing = self._session.change(ask, purpose=purpose)
        for change in self._runner.run(changing):
            if change.failed:
                value_now = value_words(change.option, change.after)
                raise LlmtopError(
                    f"{change.option} could not be set to {value_now}: {change.reason}",
                    f"see `llmtop options {self.name}`",
                )


@contextmanager
def undisturbed(on_note: Callable[[str], None]) -> Iterator[None]:
    """Delay Ctrl+C, SIGTERM and SIGHUP until the block ends; then raise KeyboardInterrupt.

    Use it in the main thread, for a few seconds at most. on_note: told once that a signal waits.
    """
    caught: list[int] = []

    def delay(signum: int, _: FrameType | None) -> None:
        if not caught:
            on_note("restoring the engine first ...")
        caught.append(signum)

    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {one: signal.getsignal(one) for one in signals}
    for one, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(one, delay)
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
    if caught:
        raise KeyboardInterrupt
