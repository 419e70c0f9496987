"""Applies two settings of one engine in turn: live if possible, else with a restart.

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
    """The engine does not start with an arm's options; it runs as it was found."""


class Variant(Struct, frozen=True):
    """One setting. live: what is to be in force, set as the engine runs. launch: what it is to be
    started with, () of neither where both arms can do without a start. name: A or B."""

    name: str
    live: Mapping[str, OptionValue] = field(default_factory=dict)
    launch: Mapping[str, OptionValue] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """``max_num_seqs=64,max_model_len=4096``."""
        return ",".join(f"{name}={value}" for name, value in self.live.items())


def sort(
    options: Sequence[Option], asked: Mapping[str, Mapping[str, str]]
) -> tuple[dict[str, Variant], tuple[str, ...]]:
    """What is asked of A and B, by option and text: the arms, and why a restart is needed.

    An option that one of them names stays as it is for the other. UsageError for an option or a
    value that cannot be.
    """
    wanted = {
        arm: {
            name: resolution.parse(resolution.find(options, name), text)
            for name, text in given.items()
        }
        for arm, given in asked.items()
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
        launch = wanted  # a start settles all at once
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
    """Puts A or B in force on one engine. ``find`` looks, nothing is touched before ``place``."""

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
        # Values that were set live: a start would lose them.
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
        # What a start without an arm makes of all that an arm's start changes or loses.
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
        """Look at the engine and at what is asked. UsageError where it cannot be compared."""
        session = wiring.session(endpoint)
        try:
            options, why_not = runner.run(session.options())
            arms, reasons = sort(options, asked)
            if reasons and endpoint.record is None:
                why = f"cannot be changed from here: {why_not}" if why_not else reasons[0]
                raise UsageError(f"{', '.join(arms['A'].live)} {why}", SIDE_BY_SIDE)
            return cls(runner, wiring, endpoint, options, arms, reasons, session)
        except BaseException:
            runner.run(session.close())
            raise

    @property
    def labels(self) -> tuple[str, str]:
        """What distinguishes A and B."""
        return self.arms["A"].label, self.arms["B"].label

    @property
    def startup_s(self) -> float | None:
        """How long a start takes, by the last one; None when none was timed."""
        return self._wiring.supervisor.expected_startup_s(self._record) if self._record else None

    def starts(self, sequence: Iterable[str]) -> int:
        """How often the engine is started for runs in this order, the way back included."""
        if self._origin is None:
            return 0
        running, count = self._running, 0
        for spec in (*(self._specs[arm] for arm in sequence), self._origin.spec):
            count += spec != running
            running = spec
        return count

    def starts_for(self, arm: str) -> bool:
        """Whether putting this arm in force restarts the engine."""
        return self._origin is not None and self._specs[arm] != self._running

    def place(self, arm: str, on_phase: OnPhase | None = None) -> bool:
        """Put an arm in force; whether the engine was started for it. Blocks.

        DidNotStart when it does not start with it: it then runs as it was found. LlmtopError when
        a value is refused, or another user or program has stopped or restarted the engine.
        """
        starts = self.starts_for(arm)
        if starts:
            self._restart(arm, on_phase)
        held = self._before if self._origin is not None else {}
        self._set({**held, **self.arms[arm].live}, lenient=self._origin is not None)
        return starts

    def put_back(self, on_note: Callable[[str], None], on_phase: OnPhase | None = None) -> None:
        """Put the engine back as it was found. Raises nothing: what cannot be put back is noted.

        What stops it and launches it again cannot be interrupted; once it is launched Ctrl+C leaves
        it to start by itself.
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
            # The comparison is over either way, and what it found, or why it ended, comes first.
            on_note(f"llmtop: {error.message}: {self.name} is not restored")

    def close(self) -> None:
        """Give the sockets back."""
        self._runner.run(self._session.close())

    def _restart(self, name: str, on_phase: OnPhase | None) -> None:
        assert self._origin is not None and self._record is not None
        spec, arm, temporary_changes = (
            self._specs[name],
            self.arms[name],
            self._wiring.temporary_changes,
        )
        self._still_ours()
        wanted = {**self._started, **arm.launch}
        purpose = Purpose(WORK, {**self._started, **self._before})
        temporary_changes.lend(self._record, purpose, wanted, start=arm.launch)
        self._running = None  # whatever interrupts this, it is not as it was
        done = restart(self._wiring.supervisor, self._record, spec, self._origin, on_phase=on_phase)
        # The process first: an interrupt between the two must not make it look like another's.
        self._record = done.record
        self._running = self._origin.spec if done.rolled_back else spec
        self._follow(done.record)
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
            self._still_ours()
        with undisturbed(on_note):
            supervisor.stop(supervisor.find(self.name))
            record = supervisor.launch(origin.spec, origin=origin)
            self._running = origin.spec
            self._wiring.temporary_changes.observe(record, self._started)
        self._follow(supervisor.wait_ready(record, READY_TIMEOUT_S, on_phase).record)

    def _still_ours(self) -> None:
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

    def _follow(self, record: EngineRecord) -> None:
        if self._version and not record.version:
            record = self._wiring.supervisor.learn(record, self._version)
        self._record = record
        self._runner.run(self._session.close())
        self._session = self._wiring.session(self._wiring.of(record))

    def _set(self, wanted: Mapping[str, OptionValue], *, lenient: bool) -> None:
        """Set what is not so already. lenient: a start has settled what cannot be set."""
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
    """Ctrl+C, SIGTERM and SIGHUP wait until this is done. For the main thread, for seconds."""
    caught: list[int] = []

    def later(signum: int, _: FrameType | None) -> None:
        if not caught:
            on_note("restoring the engine first ...")
        caught.append(signum)

    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {one: signal.getsignal(one) for one in signals}
    for one, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(one, later)
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
    if caught:
        raise KeyboardInterrupt
