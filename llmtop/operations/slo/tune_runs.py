"""Parts of a tune: the options it changes, the values in force, the goodput of a run, and the
launch command."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING

from llmtop import LlmtopError, UsageError
from llmtop.engines.core.options import Change, Option
from llmtop.engines.state.temporary_changes import Purpose
from llmtop.operations.slo.limits import MEASURED, ROLES, Names, live_names, settings_of
from llmtop.slo_control.search import ALL_IN_TIME, Measured
from llmtop.wording.format import span

if TYPE_CHECKING:
    from llmtop.engines.core.endpoint import Endpoint
    from llmtop.loadgen.core.results import RequestRecord
    from llmtop.loadgen.experiments.slo import Slo
    from llmtop.loadgen.workload.plan import Prompts


def own_settings(options: Sequence[Option], roles: Sequence[str]) -> tuple[dict[str, int], Names]:
    """The current settings by role, and the names of the options that may change.

    Empty when none of the roles is a live option.
    """
    live, settings = live_names(options), settings_of(options, None)
    names = Names(**{role: getattr(live, role) for role in roles})
    found = {role: getattr(settings, role) for role in ROLES if getattr(names, role)}
    values = {option.name: option.value for option in options}
    for role in MEASURED:
        value = values.get(getattr(names, role))
        if isinstance(value, int):
            found[role] = value
    return found, names


def most_of(options: Iterable[Option], names: Names) -> dict[str, int]:
    """The highest allowed value of each role that the forecast cannot predict."""
    found = {}
    for option in options:
        for role in MEASURED:
            if option.name == getattr(names, role) and option.maximum is not None:
                found[role] = int(option.maximum)
    return found


LONGEST_RUN_S = 30.0
"""Longest run to which a first run is extended automatically."""
MOST_DRAIN_S = 20.0
RESTORE_S = 2.0  # estimated time to restore the options
CLIENT_S = 0.5  # delay with which this client may receive an answer


def drain_s(slo: Slo, prompts: Prompts) -> float:
    """How long to wait for answers after the last request was sent, in seconds.

    After the time that the limits allow for the longest answer, all that are missing are late.
    """
    longest = prompts.output_tokens
    if slo.e2e is not None:
        decided = slo.e2e
    elif (
        slo.ttft is None
        or slo.tpot is None
        or not isinstance(longest, tuple)
        or prompts.dataset
        or prompts.turns > 1
    ):
        return MOST_DRAIN_S
    else:
        decided = slo.ttft + slo.tpot * longest[1]
    return min(MOST_DRAIN_S, decided + CLIENT_S)


def in_time(
    records: Iterable[RequestRecord], slo: Slo, since: float, end: float, *, is_open: bool
) -> Measured:
    """The goodput of the requests with a scheduled time from ``since`` to ``end``.

    Both are times of the load's clock, in seconds. is_open: the load is an open loop. Such a run
    has settled if the median latency is at most half of its length.
    """
    counted = [record for record in records if since <= record.intended <= end]
    good = sum(slo.met(record) for record in counted)
    share = good / len(counted) if counted else 0.0
    took = [math.inf if record.e2e is None else record.e2e for record in counted]
    settled = not is_open or not took or median(took) <= (end - since) / 2
    return Measured(good / max(end - since, 1e-9), share, len(counted), settled)


def next_length(first: Measured, seconds: float) -> float | None:
    """The length of a longer first run, in seconds; None if this one is long enough.

    It is, if requests were late in it, or if a growing queue would have been visible.
    """
    if first.settled or first.share < ALL_IN_TIME or seconds >= LONGEST_RUN_S:
        return None
    return min(2 * seconds, LONGEST_RUN_S)


class TimeLimit:
    """The time limit of a tune. most_s: seconds; None: no limit."""

    def __init__(self, most_s: float | None) -> None:
        self._most_s = most_s
        self._took: dict[int, float] = {}  # seconds of the newest run, by candidate

    def check(self, seconds: float) -> None:
        """Raise UsageError when not even the first run, of ``seconds``, would end in time."""
        if self._most_s is not None and not self.has(0.0, seconds):
            raise UsageError(
                f"a run of {span(seconds)} and the restore do not fit into {span(self._most_s)}",
                "choose shorter runs or a longer time limit",
            )

    def took(self, index: int, seconds: float) -> None:
        """Record how long a run of a candidate took."""
        self._took[index] = seconds

    def fits(self, index: int, spent: float, runs: int) -> bool:
        """Whether there is time for a run of a candidate and the restore.

        spent: seconds since the tune began. runs: number of runs that have ended.
        """
        usual = max(self._took.values(), default=spent / max(1, runs))
        return self.has(spent, self._took.get(index, usual))

    def has(self, spent: float, seconds: float) -> bool:
        """Whether there is time for ``seconds`` more and the restore."""
        return self._most_s is None or spent + seconds + RESTORE_S <= self._most_s

    def left(self, spent: float, expected: float) -> float:
        """The remaining time, in seconds: ``expected``, cut at the limit."""
        return expected if self._most_s is None else min(expected, max(0.0, self._most_s - spent))


class InForce:
    """Tracks which values are in force, and which options must change.

    A change without an answer makes the value unknown, so that it is set again. own: the operator's
    values by option name.
    """

    def __init__(self, own: Mapping[str, int]) -> None:
        self.own = dict(own)
        self.purpose = Purpose("tune", self.own)
        self._known: dict[str, int | None] = dict(own)

    @property
    def restored(self) -> bool:
        """Whether the operator's values are known to be in force."""
        return self._known == self.own

    def ask(self, settings: Mapping[str, int]) -> dict[str, int]:
        """The options that must change. Their values are unknown until ``answered``."""
        asked = {name: value for name, value in settings.items() if self._known[name] != value}
        self._known |= dict.fromkeys(asked)
        return asked

    def answered(self, asked: Mapping[str, int], changes: Iterable[Change]) -> None:
        """Process the engine's answer. Raises LlmtopError for the first option that failed.

        Its value stays unknown, because some ranks may have accepted it.
        """
        failed = None
        for change in changes:
            if not change.failed:
                self._known[change.option] = asked[change.option]
            elif failed is None:
                failed = change
        if failed is not None:
            raise LlmtopError(
                f"{failed.option} cannot be set to {failed.after}: {failed.reason}",
                "see `llmtop options`",
            )


def launch_line(endpoint: Endpoint, settings: Mapping[str, int]) -> str:
    """The command that launches the engine with these settings; "" when no flag sets them."""
    import shlex

    from llmtop.engines.host.redaction import redact
    from llmtop.engines.tuning.argv_editor import with_changed_flags

    record, adapter = endpoint.record, endpoint.adapter
    if record is None or not settings:
        return ""
    flagged = {o.name for o in adapter.options if o.flag.startswith("-")}
    kept = {name: value for name, value in settings.items() if name in flagged}
    try:
        edit = adapter.with_options
        if edit is not None:
            args = edit(record.spec.args, kept)
        else:
            args = with_changed_flags(adapter.options, record.spec.args, kept, adapter.long_flag)
    except LlmtopError:
        return ""
    words = ["llmtop", "run", record.spec.kind, record.spec.model, "--", *redact(args)]
    return shlex.join(words)
