"""Help begins with the keys of the screen that it was opened on."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from llmtop.config.key_table import Place
from llmtop.tui.app import LlmtopApp
from tests.tiers import first


@pytest.mark.parametrize("size", first(1, [(80, 24), (120, 40), (200, 60)]))
@pytest.mark.parametrize(
    ("keys", "place"),
    [
        ([], Place.LOAD),
        (["o"], Place.OPTIONS),
        (["l"], Place.LOG),
        (["s"], Place.EXPERIMENT),
        (["c"], Place.EXPERIMENT),
    ],
)
async def test_help_opens_at_the_keys_of_its_screen(
    make_app: Callable[..., LlmtopApp],
    screen_text: Callable[[LlmtopApp], str],
    size: tuple[int, int],
    keys: list[str],
    place: Place,
) -> None:
    app = make_app()
    async with app.run_test(size=size) as pilot:
        await pilot.press(*keys)
        await pilot.pause()
        await pilot.press("f1")
        await pilot.pause()
        lines = [line for line in screen_text(app).splitlines() if line.strip("│ ")]
        assert place.value in lines[1], lines[:4]
