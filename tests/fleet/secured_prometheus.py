"""A Prometheus behind TLS that wants its clients to identify themselves, with a server's own words.

It knows one engine, from the answers of ``tests.fleet.fake_prometheus``'s kind of page.
"""

from __future__ import annotations

import json
import ssl
import threading
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from msgspec import Struct, field

from tests.folders import TESTS

TLS = TESTS / "data" / "tls"
AUTHORITY, SERVER, CLIENT = TLS / "authority.pem", TLS / "signed.pem", TLS / "client.pem"
STRANGER = TLS / "self_signed.pem"
TARGET = {"job": "vllm", "instance": "gpu-7:8000", "model_name": "llama", "engine": "0"}


class Secured(Struct):
    """url: https. authorization: what it wants, "" for anything; another answer echoes what came,
    as a careless proxy does. seen: what came."""

    url: str
    authorization: str = ""
    seen: list[str] = field(default_factory=list)


def _rows(query: str, now: float) -> list[tuple[dict[str, str], float]]:
    labels = {name: TARGET[name] for name in ("job", "instance")}
    if query.startswith("timestamp("):
        return [(labels, now - 1)]
    if query.startswith("up"):
        return [({"__name__": "up", **labels}, 1.0)]
    if query.startswith(("scrape_duration", "process_start", "sum by")) or "_bucket" in query:
        return []
    return [
        ({"__name__": "vllm:num_requests_running", **TARGET}, 3.0),
        ({"__name__": "vllm:generation_tokens_total", **TARGET}, now % 1e6 * 100),
    ]


@contextmanager
def secured(*, clients: Path | None = None, authorization: str = "") -> Iterator[Secured]:
    """clients: certificates of which a client must show one; None: it need not."""
    found = Secured("", authorization)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
            asked = urllib.parse.parse_qs(body)
            came = self.headers.get("Authorization", "")
            found.seen.append(came)
            if found.authorization and came != found.authorization:
                self._send(400, {"status": "error", "error": f"bad header {came}"})
                return
            now = float(asked["time"][0]) if "time" in asked else time.time()
            series = [
                {"metric": labels, "value": [now, str(value)]}
                for labels, value in _rows(asked["query"][0], now)
            ]
            if "time" not in asked:
                series = []
            result = {"resultType": "vector", "result": series}
            self._send(200, {"status": "success", "data": result})

        def do_GET(self) -> None:
            self._send(404, {})

        def _send(self, status: int, document: object) -> None:
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            """A client that was refused is what some tests want."""

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(SERVER)
    if clients is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(clients)
    with Server(("127.0.0.1", 0), Handler) as server:
        # The handshake belongs to the thread of a client: one that hangs holds up no other one.
        server.socket = context.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        found.url = f"https://127.0.0.1:{server.server_port}"
        try:
            yield found
        finally:
            server.shutdown()
            thread.join()
