"""The tour: its script is a function of what the engine can do; the clock is the test's."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import click
import pytest
from click.testing import CliRunner
from textual.events import MouseDown
from textual.pilot import Pilot

from llmtop import LlmtopError
from llmtop.cli.screen.tour_options import ask
from llmtop.engines.core.options import Applies, Option, OptionValue, Outcome
from llmtop.loadgen.workload import shape
from llmtop.loadgen.workload.plan import Plan
from llmtop.tui.app import LlmtopApp
from llmtop.tui.dashboard.tour import Tour
from llmtop.tui.dashboard.tour_script import LONG, script
from llmtop.tui.screens.help import HelpScreen
from llmtop.tui.store.store import Store
from llmtop.tui.view.caption import Caption
from llmtop.tui.widgets.row import whole_parts
from llmtop.values import replace
from tests.fake_control import FakeControl

Make = Callable[..., LlmtopApp]
Text = Callable[[LlmtopApp], str]
Settle = Callable[[Pilot[None]], Awaitable[None]]


class Clock:
    """Sleeping takes no time; ``at`` is called whenever somebody sleeps."""

    def __init__(self, at: Callable[[float], Awaitable[None]] | None = None) -> None:
        self.now = 0.0
        self.at = at

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        if self.at is not None:
            await self.at(self.now)


@pytest.fixture
def options(store: Store) -> tuple[Option, ...]:
    """Live: max_num_seqs 256 of 1,024, speculation off now and armed with 3."""
    return tuple(
        replace(o, minimum=0) if o.name == "num_speculative_tokens" else o
        for o in store.engines["llama"].options
    )


def played(
    control: FakeControl,
    options: Sequence[Option],
    clock: Clock | None = None,
    *,
    speed: float = 1.0,
    ended: Callable[[], bool] = lambda: False,
) -> tuple[Tour, list[str]]:
    said: list[str] = []

    async def ready() -> Sequence[Option]:
        return options

    def tell(level: str, words: str) -> None:
        said.append(f"{level}: {words}")

    clock = clock or Clock()
    return Tour("llama", control, ready, tell, ended, speed, clock.sleep), said


def test_the_script_is_five_minutes_of_the_scenes_in_order(options: tuple[Option, ...]) -> None:
    scenes = script(options)
    assert [scene.title for scene in scenes] == [
        "idle", "linear growth", "the knee", "overload", "batch limit, live", "batch limit back",
        "speculation off", "speculation on", "KV pressure", "recovery", "the end",
    ]  # fmt: skip
    assert 280 <= sum(scene.seconds for scene in scenes) <= 320
    assert scenes == script(options)
    for scene in scenes:
        for step in scene.steps:
            if step.shape:
                assert shape.parse(step.shape).highest <= 1280
    assert "320 streams, above the batch limit" in scenes[3].words


def test_every_caption_fits_into_80_columns(options: tuple[Option, ...]) -> None:
    large = tuple(
        replace(o, value=4096, launch=4096, spec=replace(o.spec, name="max_running_requests"))
        if o.name == "max_num_seqs"
        else o
        for o in options
    )
    for some in (options, large, ()):
        for scene in script(some):
            assert whole_parts(scene.words, 78) == scene.words, scene.words


def test_a_narrow_caption_is_cut_between_its_parts() -> None:
    words = "640 streams, above the batch limit: the rest waits, oldest grows first"
    assert whole_parts(words, 60) == "640 streams, above the batch limit: the rest waits"
    assert whole_parts(words, 40) == "640 streams, above the batch limit"
    assert whole_parts(words, 8) == "640 str…"


def test_what_the_engine_cannot_do_is_left_out_and_said(options: tuple[Option, ...]) -> None:
    fixed = tuple(replace(option, applies=Applies.RESTART) for option in options)
    context = replace(
        fixed[0], spec=replace(fixed[0].spec, name="max_model_len"), value=2048, launch=2048
    )
    scenes = {scene.title: scene for scene in script((*fixed, context))}
    for title in ("batch limit", "speculation", "KV pressure"):
        assert "skipped: " in scenes[title].words and scenes[title].seconds < 10
    assert not any(step.option for scene in scenes.values() for step in scene.steps)
    assert not any(step.prompts == LONG for scene in scenes.values() for step in scene.steps)
    assert [scene.title for scene in script(())][:4] == [
        "idle", "linear growth", "the knee", "overload",
    ]  # fmt: skip


async def test_it_plays_to_the_end_and_leaves_options_as_they_were(
    control: FakeControl, options: tuple[Option, ...]
) -> None:
    captions: list[Caption] = []
    clock = Clock()
    tour, said = played(control, options, clock)

    async def look(now: float) -> None:
        assert tour.caption is not None
        captions.append(tour.caption)

    clock.at = look
    await tour.play()
    assert clock.now == sum(scene.seconds for scene in script(options))
    shares = [caption.share for caption in captions]
    assert shares == sorted(shares) and shares[0] == 0.0 and 0.9 < shares[-1] < 1.0
    assert not tour.running and tour.caption is None and tour.to_restore == {} and said == []
    last: dict[str, OptionValue] = {}
    for call in control.calls:
        if call[0] == "set_option":
            last[str(call[2])] = call[3]  # type: ignore[assignment]
    assert last == {"max_num_seqs": 256, "num_speculative_tokens": 0}
    assert control.calls[-1] == ("stop_load",)


async def test_twice_as_fast_the_ramps_are_half_as_long(
    control: FakeControl, options: tuple[Option, ...]
) -> None:
    clock = Clock()
    tour, _ = played(control, options, clock, speed=2.0)
    await tour.play()
    assert clock.now == sum(scene.seconds for scene in script(options)) / 2
    plans = [call[1] for call in control.calls if call[0] == "load"]
    shapes = [plan.shape for plan in plans if isinstance(plan, Plan)]
    assert shapes[0] == "ramp 1..32 over 19.000s, hold 32"


async def test_who_takes_over_keeps_the_load_and_gets_the_options_back(
    control: FakeControl, options: tuple[Option, ...]
) -> None:
    clock = Clock()
    tour, said = played(control, options, clock)

    async def look(now: float) -> None:
        if tour.to_restore:
            await tour.stop()

    clock.at = look
    await tour.play()
    assert control.calls[-3:] == [
        ("set_option", "llama", "max_num_seqs", 32, False),
        ("freeze",),
        ("set_option", "llama", "max_num_seqs", 256, False),
    ]
    assert said == [
        "info: the tour ends: the load stays at its level; now use the keys",
        "info: max_num_seqs is 256 again, as before the tour",
    ]
    assert tour.to_restore == {} and tour.caption is None


async def test_an_engine_that_ends_ends_the_show_its_load_and_what_it_says(
    control: FakeControl, options: tuple[Option, ...]
) -> None:
    died: list[float] = []
    captions: list[str] = []
    clock = Clock()
    tour, said = played(control, options, clock, ended=lambda: bool(died))

    async def look(now: float) -> None:
        assert tour.caption is not None and not died
        captions.append(tour.caption.title)
        if captions[-1] == "batch limit, live":
            died.append(now)  # in the first second of the scene

    clock.at = look
    await tour.play()
    assert captions[-1] == "batch limit, live" and captions.count("batch limit, live") == 1
    assert control.calls[-1] == ("cut_load",)
    assert said == ["warning: the tour ends: llama does not run any more"]
    assert not tour.running and tour.caption is None and tour.to_restore == {}


async def test_however_it_ends_options_are_put_back(
    control: FakeControl, options: tuple[Option, ...]
) -> None:
    clock = Clock()
    tour, _ = played(control, options, clock)

    async def look(now: float) -> None:
        if tour.to_restore:
            raise asyncio.CancelledError

    clock.at = look
    with pytest.raises(asyncio.CancelledError):
        await tour.play()
    assert control.calls[-1] == ("set_option", "llama", "max_num_seqs", 256, False)
    assert tour.to_restore == {}


async def test_what_the_engine_refuses_is_said_and_stays_owed_only_when_it_was_changed(
    control: FakeControl, options: tuple[Option, ...]
) -> None:
    control.outcome, control.reason = Outcome.REFUSED, "not now"
    tour, said = played(control, options)
    await tour.play()
    assert "warning: tour: max_num_seqs = 32 was refused: not now" in said
    control.error = LlmtopError("the socket is gone")
    tour, said = played(control, options)
    await tour.play()
    assert any("the socket is gone" in words for words in said)


async def test_an_engine_that_does_not_run_gets_no_tour(control: FakeControl) -> None:
    said: list[str] = []

    async def ready() -> Sequence[Option]:
        raise LlmtopError("no tour: the engine does not run")

    tour = Tour("llama", control, ready, lambda level, words: said.append(words), lambda: False)
    await tour.play()
    assert said == ["no tour: the engine does not run"] and control.calls == []


def touring(control: FakeControl) -> Tour:
    tour, _ = played(control, ())
    tour.running, tour.caption = True, Caption("the knee", "tokens/s bend, TTFT begins to rise")
    return tour


@pytest.mark.parametrize("size", [(60, 16), (60, 17), (80, 24), (120, 40), (200, 60)])
async def test_the_caption_fits_at_all_sizes_and_the_pulse_stays(
    screen_text: Text, make_app: Make, control: FakeControl, size: tuple[int, int]
) -> None:
    app = make_app(tour=touring(control))
    async with app.run_test(size=size) as pilot:
        await pilot.pause()
        text = screen_text(app)
        assert "tour: the knee" in text and "tokens/s bend" in text
        assert "run 256/256" in text and "TTFT" in text and "KV" in text
        assert ("any key ends the tour" in text) == (size[1] > 16)
        assert "? help" not in text
        heights = [panel.region.bottom for panel in app.screen.query("Panel") if panel.size]
        assert max(heights) == size[1]


@pytest.mark.parametrize(
    ("key", "calls"),
    [
        ("plus", [("freeze",), ("more",)]),
        ("space", [("freeze",)]),  # to hold is what taking over does
        ("question_mark", [("freeze",)]),
        ("z", [("freeze",)]),  # means nothing, and ends it all the same
    ],
)
async def test_any_key_takes_over(
    settle: Settle,
    screen_text: Text,
    make_app: Make,
    control: FakeControl,
    key: str,
    calls: list[object],
) -> None:
    tour = touring(control)
    app = make_app(tour=tour)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        await pilot.press(key)
        await settle(pilot)
        assert control.calls == calls and not tour.running
        assert isinstance(app.screen, HelpScreen) == (key == "question_mark")
        if key != "question_mark":
            assert "the knee" not in screen_text(app) and "? help" in screen_text(app)


async def test_a_click_takes_over_too_and_leaving_puts_back(
    settle: Settle, make_app: Make, control: FakeControl, options: tuple[Option, ...]
) -> None:
    tour = touring(control)
    app = make_app(tour=tour)
    async with app.run_test(size=(80, 24)) as pilot:
        app.post_message(MouseDown(None, 5, 5, 0, 0, 1, False, False, False))
        await pilot.pause()
        await settle(pilot)
        assert control.calls == [("freeze",)] and not tour.running
        tour.to_restore = {"max_num_seqs": 256}
        tour._options = {option.name: option for option in options}
        await pilot.press("q", "enter")
        await settle(pilot)
    assert control.calls[1:] == [
        ("set_option", "llama", "max_num_seqs", 256, False),
        ("quit", False),
    ]


@pytest.mark.parametrize(
    ("answer", "simulated", "yes", "code", "asked"),
    [
        ("n", False, False, 1, True),
        ("y", False, False, 0, True),
        ("", False, True, 0, False),
        ("", True, False, 0, False),
    ],
)
def test_a_real_engine_is_asked_about_once(
    answer: str, simulated: bool, yes: bool, code: int, asked: bool
) -> None:
    @click.command()
    def verb() -> None:
        ask("big", "http://gpu:8000", simulated=simulated, yes=yes)

    done = CliRunner().invoke(verb, input=f"{answer}\n")
    assert done.exit_code == code
    assert ("The tour overloads big at http://gpu:8000" in done.output) == asked


@pytest.fixture
def held(options: tuple[Option, ...]) -> tuple[Option, ...]:
    """Also a queue limit that changes live."""
    queue = replace(
        options[0], value=0, launch=0, spec=replace(options[0].spec, name="max_queued_requests")
    )
    return (*options, replace(queue, applies=Applies.LIVE, minimum=0, maximum=None))


def test_an_engine_of_ours_is_held_in_its_overload(held: tuple[Option, ...]) -> None:
    titles = [scene.title for scene in script(held, owned=True)]
    at = titles.index("overload")
    assert titles[at : at + 3] == ["overload", "overload, held", "the hold ends"]
    assert "overload, held" not in [scene.title for scene in script(held)]
    for scene in script(held, owned=True):
        assert whole_parts(scene.words, 78) == scene.words, scene.words
    assert sum(scene.seconds for scene in script(held, owned=True)) <= 340


async def test_the_hold_of_the_tour_ends_with_its_scene(
    control: FakeControl, held: tuple[Option, ...]
) -> None:
    tour, said = played(control, held)
    tour.owned = True
    await tour.play()
    holds = [call for call in control.calls if "hold" in str(call[0]) and call[0] != "hold"]
    assert holds == [("start_hold", "llama", "ttft=1s,tpot=50ms"), ("end_hold", "llama")]
    assert said == []


async def test_who_takes_over_in_a_hold_ends_it(
    control: FakeControl, held: tuple[Option, ...]
) -> None:
    clock = Clock()
    tour, _ = played(control, held, clock)
    tour.owned = True

    async def look(now: float) -> None:
        if control.calls[-1:] == [("start_hold", "llama", "ttft=1s,tpot=50ms")]:
            await tour.stop()

    clock.at = look
    await tour.play()
    assert control.calls[-2:] == [("freeze",), ("end_hold", "llama")]
