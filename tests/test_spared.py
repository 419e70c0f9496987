"""Textual is imported without its command palette, and everything else of it is as ever."""

from __future__ import annotations

import subprocess
import sys
import textwrap

from textual.app import App


def python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_palette_and_its_widgets_are_not_imported() -> None:
    code = """
    import sys
    from llmtop.tui import spared
    spared.import_app()
    import llmtop.tui.app
    names = ("textual.command", "textual.widgets._input", "textual.widgets._option_list")
    print([name for name in names if name in sys.modules])
    """
    assert python(code) == "[]"


def test_whoever_wants_the_palette_afterwards_gets_the_real_one() -> None:
    code = """
    from llmtop.tui import spared
    spared.import_app()
    from textual.command import CommandPalette, Provider
    from textual.screen import Screen
    print(issubclass(CommandPalette, Screen), CommandPalette.__module__)
    """
    assert python(code) == "True textual.command"


def test_a_textual_that_does_more_with_its_palette_is_imported_whole() -> None:
    code = """
    import sys
    from llmtop.tui import spared
    def refuse(self, name):
        raise TypeError(name)
    spared._Names.__getattr__ = refuse
    spared.import_app()
    from textual.app import App
    from textual.command import CommandPalette
    print(App.__name__, "textual.widgets._input" in sys.modules)
    """
    assert python(code) == "App True"


def test_an_app_that_is_there_already_is_left_alone() -> None:
    from llmtop.tui import spared

    before = sys.modules["textual.app"]
    spared.import_app()
    assert sys.modules["textual.app"] is before
    assert App.ENABLE_COMMAND_PALETTE


def test_the_parser_of_metrics_comes_without_its_servers() -> None:
    code = """
    import sys
    from llmtop.engines.exposition import Parser
    found = Parser(("vllm:",)).parse('vllm:running{engine="0"} 3\\n')
    print(found.value("vllm:running", engine="0"), "prometheus_client.exposition" in sys.modules)
    import prometheus_client
    print(prometheus_client.CollectorRegistry().collect() is not None)
    """
    assert python(code) == "3.0 False\nTrue"
