"""Options that a comparison or a tour has changed for a while, written down before they are.

``loans.json`` in an engine's folder: each such option, what it was before, and which llmtop changed
it. An entry goes when the option is as it was. When that llmtop is killed in the midst the entry
stays, and the next llmtop says so. Nothing is put back unasked: somebody may have meant it to stay.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from os import getpid

import msgspec

from llmtop.engines.files import read_whole
from llmtop.engines.options import OptionValue
from llmtop.engines.processes import Identity, Processes
from llmtop.engines.records import EngineRecord, EngineStatus, Left, State
from llmtop.engines.state import RECORD_BYTES, SCHEMA, StateDirectory, StateError
from llmtop.engines.watch import identity

FILE = "loans.json"
LaunchOptions = Callable[[EngineRecord], Mapping[str, OptionValue]]


@dataclass(frozen=True, slots=True)
class Purpose:
    """What options are changed for. work: ``compare``, ``the tour``. before: what they were."""

    work: str
    before: Mapping[str, OptionValue]


@dataclass(frozen=True, slots=True)
class Loan:
    """One option on loan. now: its value since. by: the llmtop that changed it.

    engine: the process that was changed as it runs; None where it was started with ``now``.
    """

    work: str
    before: OptionValue
    now: OptionValue
    by: Identity
    engine: Identity | None


class _LoansFile(msgspec.Struct):
    loans: dict[str, Loan]
    schema: int = SCHEMA


class Loans:
    """What options are on loan, whoever changed them.

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
        launch: bool = False,
    ) -> None:
        """Write down what is about to be changed; StateError where there is no room for that.

        launch: the engine is about to be started with it. Of an option that a killed llmtop left
        changed, what it was before that one stays on record.
        """
        loans = self._of(record.name)
        entry = self._processes.entry(getpid())
        by = Identity(getpid(), entry.start_ticks if entry else 0, self._processes.boot_id)
        engine = None if launch else identity(record)
        for name, value in wanted.items():
            if name not in purpose.before:
                continue
            found = loans.get(name)
            former = found is not None and self._holds(record, name, found)
            before = found.before if found is not None and former else purpose.before[name]
            if value != before:
                loans[name] = Loan(purpose.work, before, value, by, engine)
        self._write(record.name, loans)

    def told(self, record: EngineRecord, values: Mapping[str, OptionValue]) -> None:
        """What options are by now: those that are as they were before are no longer on loan."""
        loans = self._of(record.name)
        left = dict(loans)
        for name, value in values.items():
            if name in left and left[name].before == value:
                del left[name]
            elif name in left:
                left[name] = replace(left[name], now=value)
        self._note(record.name, loans, left)

    def settle(self, record: EngineRecord, names: Collection[str]) -> None:
        """Somebody has chosen values anew: what a killed llmtop left of these is of no matter."""
        loans = self._of(record.name)
        left = {
            name: loan
            for name, loan in loans.items()
            if name not in names or self._processes.alive(loan.by)
        }
        self._note(record.name, loans, left)

    def left(self, record: EngineRecord) -> tuple[Left, ...]:
        """The options that a llmtop which is gone has left changed on this very process."""
        return tuple(
            Left(loan.work, name, loan.before, loan.now, by_restart=loan.engine is None)
            for name, loan in self._of(record.name).items()
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
        if loan.engine is not None:
            return loan.engine == identity(record)
        return self._launch_options(record).get(name) == loan.now

    def _of(self, name: str) -> dict[str, Loan]:
        try:
            data = read_whole(self._state.folder(name) / FILE, RECORD_BYTES)
            return msgspec.json.decode(data, type=_LoansFile).loans
        except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return {}

    def _note(self, name: str, before: dict[str, Loan], after: dict[str, Loan]) -> None:
        """What has happened already: it must not fail for want of a place to write it down."""
        if after != before:
            with contextlib.suppress(StateError):
                self._write(name, after)

    def _write(self, name: str, loans: dict[str, Loan]) -> None:
        if loans:
            text = msgspec.json.format(msgspec.json.encode(_LoansFile(loans))).decode()
            self._state.write_file(name, FILE, text + "\n")
            return
        with contextlib.suppress(OSError):
            (self._state.folder(name) / FILE).unlink()
