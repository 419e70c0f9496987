"""Which values of a tune's options are in force, as far as the engine has answered."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from llmtop import LlmtopError
from llmtop.engines.core.options import Change
from llmtop.engines.state.temporary_changes import Purpose


class InForce:
    """What to ask for, so that settings come into force; what was asked and not answered counts as
    not known, and is asked for again. own: the operator's values by option name."""

    def __init__(self, own: Mapping[str, int]) -> None:
        self.own = dict(own)
        self.purpose = Purpose("tune", self.own)
        self._known: dict[str, int | None] = dict(own)

    @property
    def restored(self) -> bool:
        """Whether the operator's values are known to be in force."""
        return self._known == self.own

    def ask(self, settings: Mapping[str, int]) -> dict[str, int]:
        """The options that must change. Their values are not known until ``answered``."""
        asked = {name: value for name, value in settings.items() if self._known[name] != value}
        self._known |= dict.fromkeys(asked)
        return asked

    def answered(self, asked: Mapping[str, int], changes: Iterable[Change]) -> None:
        """What the engine answered. LlmtopError for the first option that it did not take; a part
        of the engine may have taken it, so its value stays unknown."""
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
