"""The rules and their state for each engine. An alert is reported at its begin and at its end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct

from llmtop.alerts.expression import Expression, Range, Snapshot


class Rule(Struct, frozen=True):
    """One rule. engines: names of the engines that it applies to, () for all.

    command: a program and its arguments, () for none. webhook: the URL to which an alert is posted,
    "" for none. bell: ring the terminal.
    """

    name: str
    when: Expression
    engines: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    webhook: str = ""
    bell: bool = False

    def __repr__(self) -> str:
        return f"Rule({self.name!r})"  # the URL of the webhook may contain a secret


class Alert(Struct, frozen=True):
    """The begin or the end of an alert. Times are unix seconds.

    since: when its condition began to hold. value: the measured value, None for a state, and if the
    value is not known.
    """

    rule: Rule
    engine: str
    begins: bool
    time: float
    since: float
    value: Range | None = None


class _State(Struct):
    holds_since: float | None = None
    fails_since: float | None = None
    active_since: float | None = None


class Alerts:
    """The state of every rule for every engine. All times are of one clock, unix seconds.

    began: returns the start of an alert that another process recorded and that has not ended.
    """

    def __init__(
        self,
        rules: Sequence[Rule],
        began: Callable[[Rule, str], float | None] = lambda rule, engine: None,
    ) -> None:
        self.rules = tuple(rules)
        self._began = began
        self._states: dict[tuple[str, str], _State] = {}

    def evaluate(self, engines: Mapping[str, Snapshot], now: float) -> list[Alert]:
        """Evaluate all rules. Returns the alerts that begin or end now.

        An alert begins when its condition has held for the duration of the rule. It ends when the
        condition has not held for the same duration. While that is not known, nothing begins or
        ends. The alert of an engine that is absent from ``engines`` ends at once. An alert that
        another process recorded begins at the first evaluation of its engine.
        """
        found: list[Alert] = []
        for rule in self.rules:
            for name, snapshot in engines.items():
                if not rule.engines or name in rule.engines:
                    found += self._update(rule, name, snapshot, now)
        for (rule_name, name), state in list(self._states.items()):
            if name not in engines:
                del self._states[rule_name, name]
                rule = next(one for one in self.rules if one.name == rule_name)
                if state.active_since is not None:
                    found.append(Alert(rule, name, False, now, state.active_since))
        return found

    @property
    def active(self) -> list[tuple[Rule, str]]:
        """The alerts that have begun and not ended: rule and engine."""
        rules = {rule.name: rule for rule in self.rules}
        return [
            (rules[name], engine)
            for (name, engine), state in self._states.items()
            if state.active_since is not None
        ]

    def _update(self, rule: Rule, name: str, snapshot: Snapshot, now: float) -> list[Alert]:
        state = self._states.get((rule.name, name))
        if state is None:
            since = self._began(rule, name)
            state = self._states[rule.name, name] = _State(active_since=since)
            if since is not None:
                begin = Alert(rule, name, True, now, since)
                return [begin, *self._update(rule, name, snapshot, now)]
        holds, wait = rule.when.holds(snapshot), rule.when.for_s
        value = snapshot.numbers.get(rule.when.subject)
        if holds is None:
            if state.active_since is None:
                state.holds_since = None
            return []
        if holds:
            state.fails_since = None
            state.holds_since = now if state.holds_since is None else state.holds_since
            if state.active_since is None and now - state.holds_since >= wait:
                state.active_since = state.holds_since
                return [Alert(rule, name, True, now, state.active_since, value)]
            return []
        state.holds_since = None
        state.fails_since = now if state.fails_since is None else state.fails_since
        if state.active_since is not None and now - state.fails_since >= wait:
            since, state.active_since = state.active_since, None
            return [Alert(rule, name, False, now, since, value)]
        return []
