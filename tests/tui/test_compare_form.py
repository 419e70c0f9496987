"""The number of streams that the compare form proposes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from llmtop.loadgen.core.results import LoadSnapshot
from llmtop.tui.app import LlmtopApp
from llmtop.tui.screens.compare import CompareScreen
from llmtop.tui.store.store import Store


async def opened(app: LlmtopApp, keys: list[str]) -> dict[str, str]:
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.press("c")
        await pilot.pause()
        assert isinstance(app.screen, CompareScreen)
        await pilot.press(*keys)
        await pilot.pause()
        return {field.name: field.text for field in app.screen.form.fields}


async def test_two_batch_limits_are_compared_at_the_larger_one(
    make_app: Callable[..., LlmtopApp], store: Store
) -> None:
    store.load = None
    form = await opened(make_app(), [])
    assert (form["compare"], form["A"], form["B"]) == ("max_num_seqs", "256", "1,024")
    assert form["streams"] == "1024"


async def test_typed_values_move_it_until_it_is_typed_itself(
    make_app: Callable[..., LlmtopApp], store: Store
) -> None:
    store.load = None
    form = await opened(make_app(), ["down", *"8", "down", *"64"])
    assert form["streams"] == "64"
    form = await opened(make_app(), ["down", "down", "down", *"20", "up", *"128"])
    assert (form["B"], form["streams"]) == ("128", "20")


@pytest.mark.parametrize(("asked", "streams"), [(None, "32"), (48.0, "48")])
async def test_other_options_are_compared_at_the_load_that_runs(
    make_app: Callable[..., LlmtopApp],
    store: Store,
    make_load: Callable[..., LoadSnapshot],
    asked: float | None,
    streams: str,
) -> None:
    store.load = make_load(asked=asked) if asked else None
    form = await opened(make_app(), ["right"])
    assert form["compare"] == "max_num_batched_tokens"
    assert form["streams"] == streams
