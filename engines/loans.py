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
from llmtop.engines.files import read_whole
from llmtop.engines.options import OptionValue
from llmtop.engines.processes import Identity, Processes
from llmtop.engines.records import EngineRecord, EngineStatus, Left, State
from llmtop.engines.state import RECORD_BYTES, SCHEMA, NewerRecord, StateDirectory, StateError
from llmtop.engines.watch import identity
from llmtop.values import replace

FILE = "loans.json"
LOCK_WAIT_S = 1.0
LaunchOptions = Callable[[EngineRecord], Mapping[str, OptionValue]]


class Purpose(msgspec.Struct, frozen=True):
    """What options are changed for. work: ``compare``, ``the tour``. before: what they were."""

    work: str
    before: Mapping[str, OptionValue]


class Loan(Struct, frozen=True):
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


_Loans = dict[str, Loan]


class _Header(msgspec.Struct):
    schema: int


class _LoansFile(msgspec.Struct):
    loans: _Loans
    schema: int = SCHEMA


_header = msgspec.json.Decoder(_Header).decode
_loans = msgspec.json.Decoder(_LoansFile).decode


def drop(state: StateDirectory, name: str) -> None:
    """An engine is started afresh under this name: what was left of another is of no matter."""
    with contextlib.suppress(StateError, OSError):
        if _read(state, name):
            (state.folder(name) / FILE).unlink()


class Loans:
    """What options are on loan, whoever changed them. What a newer llmtop wrote is left alone.

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

        start: the engine is about to be started anew, with these of the options; the others are
        ``wanted`` because what was set of them as it ran is lost with its process. Of an option
        that a killed llmtop left changed, what it was before that one stays on record. What puts
        all options back is never refused.
        """
        entry = self._processes.entry(getpid())
        by = Identity(getpid(), entry.start_ticks if entry else 0, self._processes.boot_id)
        asked = {name: value for name, value in wanted.items() if name in purpose.before}

        def lent(loans: _Loans) -> _Loans:
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
                    loan = Loan(purpose.work, before, value, by, identity(record), launched)
                    after[name] = replace(loan, pending=start is not None)
            return after

        must = any(value != purpose.before[name] for name, value in asked.items())
        self._change(record.name, lent, must=must)

    def told(self, record: EngineRecord, values: Mapping[str, OptionValue]) -> None:
        """What options are by now: those that are as they were before are no longer on loan.

        After a start: what is on loan by it is so on this process from now on.
        """

        def learnt(loans: _Loans) -> _Loans:
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

        self._change(record.name, learnt)

    def starting(self, record: EngineRecord) -> None:
        """It is about to be started anew: what it was started with may be so afterwards too."""
        self._change(record.name, lambda loans: self._pending(record, loans))

    def settle(self, record: EngineRecord, names: Collection[str] | None = None) -> None:
        """Somebody has chosen values anew: what a killed llmtop left of these is of no matter.

        names: None for all options.
        """

        def settled(loans: _Loans) -> _Loans:
            return {
                name: loan
                for name, loan in loans.items()
                if (names is not None and name not in names) or self._processes.alive(loan.by)
            }

        self._change(record.name, settled)

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

    def _holds(self, record: EngineRecord, name: str, loan: Loan) -> bool:
        """Whether the option is what it is by this loan, as far as can be told."""
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
            text = msgspec.json.format(msgspec.json.encode(_LoansFile(loans))).decode()
            self._state.write_file(name, FILE, text + "\n")
            return
        with contextlib.suppress(OSError):
            (self._state.folder(name) / FILE).unlink()


def _read(state: StateDirectory, name: str) -> _Loans:
    """What is on loan; nothing where the file is damaged. NewerRecord: a newer llmtop wrote it."""
    path = state.folder(name) / FILE
    try:
        data = read_whole(path, RECORD_BYTES)
        if _header(data).schema > SCHEMA:
            raise NewerRecord(
                f"what is changed for a while on {name!r} was written down by a newer llmtop",
                f"use that llmtop; the file is left as it is: {path}",
            )
        return _loans(data).loans
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
