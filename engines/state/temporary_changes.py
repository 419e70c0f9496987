"""Options that a comparison or a tour changes temporarily, recorded before the change.

``loans.json`` in an engine's folder contains each such option, its earlier value, and the llmtop
that changed it. An entry is removed when the option has its earlier value again. If that llmtop is
killed, the entry stays, and the next llmtop reports it. It restores nothing by itself: the operator
may want to keep the new value.
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
    """The purpose of temporary changes. work: ``compare``, ``the tour``. before: earlier values."""

    work: str
    before: Mapping[str, OptionValue]


class TemporaryChange(Struct, frozen=True):
    """One temporarily changed option. now: its present value. by: the llmtop that changed it.

    engine: the process with the value ``now``. pending: that process was about to restart, and the
    next process has the value ``now``. launched: the next process is started with it; else
    ``now`` results from a start after a live change.
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
    """Forget the entries of an earlier engine: a new engine starts under this name."""
    with contextlib.suppress(StateError, OSError):
        if _read(state, name):
            (state.folder(name) / FILE).unlink()


class TemporaryChanges:
    """The temporary changes of options. A file of a newer llmtop is not changed.

    launch_options: the launch values from an engine's record.
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
        """Record changes before they happen. Raises LlmtopError on failure.

        start: the engine will restart with these options. The other ``wanted`` options lose their
        live value with the process. If a killed llmtop left an option changed, the recorded earlier
        value stays. A change that restores all options is never refused.
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
        """Record current values. An option with its earlier value loses its entry.

        After a start, the entries made by this start belong to this process.
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
        """Record that the engine will restart, perhaps with the same arguments."""
        self._change(record.name, lambda loans: self._pending(record, loans))

    def settle(self, record: EngineRecord, names: Collection[str] | None = None) -> None:
        """The operator chose new values: drop the entries that a killed llmtop left for them.

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
        """This llmtop's changes shall stay: drop its own entries of these."""
        self._change(
            record.name,
            lambda loans: {
                name: loan
                for name, loan in loans.items()
                if name not in names or loan.by.pid != getpid()
            },
        )

    def left(self, record: EngineRecord) -> tuple[Left, ...]:
        """The options that an ended llmtop left changed on this process."""
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
        """The status with the options that were left changed."""
        if status.state not in (State.READY, State.UNRESPONSIVE):
            return status
        found = self.left(status.record)
        return replace(status, left=found) if found else status

    def _holds(self, record: EngineRecord, name: str, loan: TemporaryChange) -> bool:
        """Whether this entry explains the option's present value, if known."""
        if not loan.pending:
            return loan.engine == identity(record)
        arguments = self._launch_options(record)
        if loan.launched:
            return arguments.get(name) == loan.now
        return loan.engine != identity(record) and arguments.get(name, loan.now) == loan.now

    def _pending(self, record: EngineRecord, loans: _Loans) -> _Loans:
        """The entries after the engine restarts with its present arguments."""
        return {
            name: replace(loan, engine=identity(record), pending=True)
            if loan.launched and self._holds(record, name, loan)
            else loan
            for name, loan in loans.items()
        }

    def _change(self, name: str, edit: Callable[[_Loans], _Loans], *, must: bool = False) -> None:
        """Read, change and write while holding the lock of the engine's name.

        must: raise LlmtopError on failure. Else ignore failures: the change has already happened or
        is about to be undone, which must not fail because the file cannot be written.
        """
        if not must:
            try:
                (self._state.folder(name) / FILE).stat()
            except OSError:
                return  # normally there are no entries, and no lock is needed
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
    """The entries; none if the file is damaged. NewerRecord: a newer llmtop wrote it."""
    path = state.folder(name) / FILE
    try:
        data = read_own(path, RECORD_BYTES)
        if _header(data).schema > SCHEMA:
            raise NewerRecord(
                f"the temporary changes of {name!r} were recorded by a newer llmtop",
                f"use that llmtop; the file stays unchanged: {path}",
            )
        return _loans(data).loans
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
