"""Options that a comparison or a tour has changed for a while, written down before they are.

``loans.json`` in an engine's folder: each such option, what it was before, and which llmtop changed
it. An entry goes when the option is as it was. When that llmtop is killed in the midst the entry
stays, and the next llmtop says so. Nothing is put back unasked: somebody may have meant it to stay.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Mapping
from os import getpid

import msgspec
from msgspec import Struct

from llmtop import LlmtopError
from llmtop.engines.core.options import OptionValue
from llmtop.engines.core.records import EngineRecord, EngineStatus, Left, State
from llmtop.engines.host.private_files import read_own
from llmtop.engines.host.processes import Identity, Processes, identity
from llmtop.engines.state.state_directory import (
    RECORD_BYTES,
    SCHEMA,
    NewerRecord,
    StateDirectory,
    StateError,
)
from llmtop.values import replace

FILE = "loans.json"
LOCK_WAIT_S = 1.0
LaunchOptions = Callable[[EngineRecord], Mapping[str, OptionValue]]


class Purpose(msgspec.Struct, frozen=True):
    """What options are changed for. work: ``compare``, ``the tour``. before: what they were."""

    work: str
    before: Mapping[str, OptionValue]


class TemporaryChange(Struct, frozen=True):
    """One option on loan. now: its value since. by: the llmtop that changed it.

    engine: the process on which it is ``now``. pending: that one was about to be started anew, and
    the option is ``now`` on whichever came next. launched: that is started with it; else ``now`` is
    what a start made of a value that somebody had set as the engine ran.
    """

    work: str
    before: OptionValue
    now: OptionValue
    by: Identity
    engine: Identity
    launched: bool = False
    pending: bool = False


_Loans = dict[str, TemporaryChange]


class _Header(msgspec.Struct):
    schema: int


class _TemporaryChangesFile(msgspec.Struct):
    loans: _Loans
    schema: int = SCHEMA


_header = msgspec.json.Decoder(_Header).decode
_loans = msgspec.json.Decoder(_TemporaryChangesFile).decode


def drop(state: StateDirectory, name: str) -> None:
    """An engine is started afresh under this name: what was left of another is of no matter."""
    with contextlib.suppress(StateError, OSError):
        if _read(state, name):
            (state.folder(name) / FILE).unlink()


class TemporaryChanges:
    """The temporary changes of options. A file of a newer llmtop is kept as it is.

    launch_options: what an engine was started with, by its record.
    """

    def __init__(
        self, state: StateDirectory, processes: Processes, launch_options: LaunchOptions
    ) -> None:
        self._state = state
        self._processes = processes
        self._launch_options = launch_options

    def lend(
        self,
        record: EngineRecord,
        purpose: Purpose,
        wanted: Mapping[str, OptionValue],
        *,
        start: Collection[str] | None = None,
    ) -> None:
        """Write down what is about to be changed; LlmtopError where that cannot be.

        start: the engine is about to be restarted, with these of the options; the others are
        ``wanted`` because what was set of them as it ran is lost with its process. Of an option
        that a killed llmtop left changed, what it was before that one stays on record. What puts
        all options back is never refused.
        """
        entry = self._processes.entry(getpid())
        by = Identity(getpid(), entry.start_ticks if entry else 0, self._processes.boot_id)
        asked = {name: value for name, value in wanted.items() if name in purpose.before}

        def recorded(loans: _Loans) -> _Loans:
            after = {
                name: loan
                for name, loan in loans.items()
                if self._processes.alive(loan.by) or self._holds(record, name, loan)
            }
            if start is not None:
                after = self._pending(record, after)
            for name, value in asked.items():
                found, before = loans.get(name), purpose.before[name]
                if found is not None and self._holds(record, name, found):
                    before = found.before
                if value != before:
                    launched = start is not None and name in start
                    loan = TemporaryChange(
                        purpose.work, before, value, by, identity(record), launched
                    )
                    after[name] = replace(loan, pending=start is not None)
            return after

        must = any(value != purpose.before[name] for name, value in asked.items())
        self._change(record.name, recorded, must=must)

    def observe(self, record: EngineRecord, values: Mapping[str, OptionValue]) -> None:
        """Record current values: an option that has its earlier value again is no longer on loan.

        After a start: the entries that this start made now belong to this process.
        """

        def observed(loans: _Loans) -> _Loans:
            after = {}
            for name, loan in loans.items():
                if name in values:
                    if values[name] == loan.before:
                        continue
                    loan = replace(loan, now=values[name])
                if loan.pending and self._holds(record, name, loan):
                    loan = replace(loan, engine=identity(record), pending=False)
                after[name] = loan
            return after

        self._change(record.name, observed)

    def starting(self, record: EngineRecord) -> None:
        """It is about to be restarted: its arguments may stay the same."""
        self._change(record.name, lambda loans: self._pending(record, loans))

    def settle(self, record: EngineRecord, names: Collection[str] | None = None) -> None:
        """Values were chosen again: drop the entries of these that a killed llmtop left.

        names: None for all options.
        """

        def settled(loans: _Loans) -> _Loans:
            return {
                name: loan
                for name, loan in loans.items()
                if (names is not None and name not in names) or self._processes.alive(loan.by)
            }

        self._change(record.name, settled)

    def keep(self, record: EngineRecord, names: Collection[str]) -> None:
        """What this llmtop changed for a while is to stay: drop its own entries of these."""
        self._change(
            record.name,
            lambda loans: {
                name: loan
                for name, loan in loans.items()
                if name not in names or loan.by.pid != getpid()
            },
        )

    def left(self, record: EngineRecord) -> tuple[Left, ...]:
        """The options that a llmtop which is gone has left changed on this very process."""
        try:
            loans = _read(self._state, record.name)
        except StateError:
            return ()
        return tuple(
            Left(loan.work, name, loan.before, loan.now, by_restart=loan.launched)
            for name, loan in loans.items()
            if not self._processes.alive(loan.by) and self._holds(record, name, loan)
        )

    def status(self, status: EngineStatus) -> EngineStatus:
        """The status with what was left changed."""
        if status.state not in (State.READY, State.UNRESPONSIVE):
            return status
        found = self.left(status.record)
        return replace(status, left=found) if found else status

    def _holds(self, record: EngineRecord, name: str, loan: TemporaryChange) -> bool:
        """Whether the option is what it is by this loan, as far as is known."""
        if not loan.pending:
            return loan.engine == identity(record)
        arguments = self._launch_options(record)
        if loan.launched:
            return arguments.get(name) == loan.now
        return loan.engine != identity(record) and arguments.get(name, loan.now) == loan.now

    def _pending(self, record: EngineRecord, loans: _Loans) -> _Loans:
        """The loans once their engine is about to be started with the arguments that it has."""
        return {
            name: replace(loan, engine=identity(record), pending=True)
            if loan.launched and self._holds(record, name, loan)
            else loan
            for name, loan in loans.items()
        }

    def _change(self, name: str, edit: Callable[[_Loans], _Loans], *, must: bool = False) -> None:
        """Read, change and write with the engine's name held.

        must: LlmtopError when that cannot be; else it is as well as can be, since it has happened
        already or is about to be put back, and that must not fail for want of a place to say so.
        """
        if not must:
            try:
                (self._state.folder(name) / FILE).stat()
            except OSError:
                return  # as a rule nothing is on loan, and nothing has to be held
        with contextlib.ExitStack() as held:
            try:
                held.enter_context(self._state.lock(name, wait_s=LOCK_WAIT_S))
            except LlmtopError:
                if must:
                    raise
            try:
                loans = _read(self._state, name)
                after = edit(loans)
                if after != loans:
                    self._write(name, after)
            except StateError:
                if must:
                    raise

    def _write(self, name: str, loans: _Loans) -> None:
        if loans:
            text = msgspec.json.format(msgspec.json.encode(_TemporaryChangesFile(loans))).decode()
            self._state.write_file(name, FILE, text + "\n")
            return
        with contextlib.suppress(OSError):
            (self._state.folder(name) / FILE).unlink()


def _read(state: StateDirectory, name: str) -> _Loans:
    """What is on loan; nothing where the file is damaged. NewerRecord: a newer llmtop wrote it."""
    path = state.folder(name) / FILE
    try:
        data = read_own(path, RECORD_BYTES)
        if _header(data).schema > SCHEMA:
            raise NewerRecord(
                f"what is changed for a while on {name!r} was written down by a newer llmtop",
                f"use that llmtop; the file is left as it is: {path}",
            )
        return _loans(data).loans
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
