"""Libraries are imported without what no screen has, and everything else of them is as ever."""

from __future__ import annotations

import ssl
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from textual.app import App

PEM = Path(__file__).with_name("data") / "tls" / "self_signed.pem"


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


@pytest.fixture
def encrypted() -> Iterator[str]:
    """A server that answers "safe" over TLS, for 127.0.0.1 by a certificate of its own."""

    class Safe(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "4")
            self.end_headers()
            self.wfile.write(b"safe")

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(PEM)
    with ThreadingHTTPServer(("127.0.0.1", 0), Safe) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"https://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_openssl_comes_with_the_first_who_encrypts_and_serves_him(encrypted: str) -> None:
    code = f"""
    import sys
    import llmtop.tui.cli
    import llmtop.tui.wiring, llmtop.tui.verbs.attach
    print("ssl" in sys.modules, "_hashlib" in sys.modules)
    import asyncio, ssl, httpx
    async def ask(context):
        async with httpx.AsyncClient(verify=context, trust_env=False) as client:
            return (await client.get({encrypted!r})).text
    print(asyncio.run(ask(ssl.create_default_context(cafile={str(PEM)!r}))))
    try:
        asyncio.run(ask(True))
    except httpx.ConnectError as error:
        print("CERTIFICATE" in str(error))
    """
    assert python(code) == "False False\nsafe\nTrue"
