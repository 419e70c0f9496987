"""An engine of which everything is known that a forecast needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from llmtop.forecast.figures import Limits
from llmtop.forecast.fit import fit
from llmtop.forecast.observed import observed
from llmtop.operations.slo.ask import Asked, Forecast, answer
from llmtop.operations.slo.fitted_engine import FittedEngine
from llmtop.operations.slo.limits import settings_of
from tests.forecast.virtual_engine import FRONT_END, TRUE, chat, steps_of
from tests.operations.test_forecast_answers import OPTIONS


@pytest.fixture(scope="session")
def known() -> FittedEngine:
    calm = steps_of(TRUE, chat(40, "open"), 8.0)
    pressed = [replace(s, seq=s.seq + 10**6) for s in steps_of(TRUE, chat(80, "open"), 8.0)]
    few = steps_of(TRUE, chat(3, "open"), 8.0)
    return FittedEngine(
        name="llama",
        simulated=False,
        fit=fit([*calm, *pressed], TRUE.context_s),
        front_end=FRONT_END,
        options=OPTIONS,
        settings=settings_of(OPTIONS, 900_000),
        observed=observed(few, None),  # so that an answer takes a moment
        no_load=None,
        table=None,
        running=4,
        waiting=0,
        ranks=1,
        measured={},
    )


@pytest.fixture(scope="session")
def quick(known: FittedEngine) -> Callable[..., Forecast]:
    """Every answer is that to 16 requests at most, computed once; refusals are those asked for."""
    one = answer(known, Asked({"max_num_seqs": "16"}, limits=Limits(1.0, 0.05), knee=False))

    def found(known: FittedEngine, asked: Asked, **given: Any) -> Forecast:
        if asked.changes.get("max_num_seqs") in ("16", "32", "64"):
            now = given["now"]
            return one if now is None else replace(one, now=now)
        return answer(known, asked, **given)

    return found
