"""The rules and their state for each engine. An alert is reported when it begins and ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct

from llmtop.alerts.expression import Expression, Range, Seen


class Rule(Struct, frozen=True):
    """One rule. engines: the names that it is for, () for all.

    command: a program and its arguments. webhook: where an alert is posted, "" for nowhere.
    """

    name: str
    when: Expression
    engines: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    webhook: str = ""
    bell: bool = False

    def __repr__(self) -> str:
        return f"Rule({self.name!r})"  # the webhook's address may hold a secret


class Alert(Struct, frozen=True):
    """The begin or the end of an alert. since: when its condition began to hold, unix seconds.

    value: what was seen, None for a state or where it is not known now.
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
    """Follows every rule for every engine. Times are of one clock, unix seconds.

    began: the start of an alert that an earlier process recorded, without a recorded end.
    """

    def __init__(
        self,
        rules: Sequence[Rule],
        began: Callable[[Rule, str], float | None] = lambda rule, engine: None,
    ) -> None:
        self.rules = tuple(rules)
        self._began = began
        self._states: dict[tuple[str, str], _State] = {}

    def evaluate(self, engines: Mapping[str, Seen], now: float) -> list[Alert]:
        """Take one look in: the alerts that begin and end with it.

        An alert ends when its condition has not held for as long as it had to hold before. Where
        that is not known, nothing begins or ends. One of an engine that is not watched any more
        ends at once. One that began before the first look at an engine is among the alerts of that
        look.
        """
        found: list[Alert] = []
        for rule in self.rules:
            for name, seen in engines.items():
                if not rule.engines or name in rule.engines:
                    found += self._step(rule, name, seen, now)
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

    def _step(self, rule: Rule, name: str, seen: Seen, now: float) -> list[Alert]:
        state = self._states.get((rule.name, name))
        if state is None:
            since = self._began(rule, name)
            state = self._states[rule.name, name] = _State(active_since=since)
            if since is not None:
                return [Alert(rule, name, True, now, since), *self._step(rule, name, seen, now)]
        holds, wait = rule.when.holds(seen), rule.when.for_s
        value = seen.numbers.get(rule.when.subject)
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
