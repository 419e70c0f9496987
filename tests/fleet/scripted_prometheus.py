"""The HTTP API of a Prometheus with answers that a test gives."""

from __future__ import annotations

import json
import threading
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Rows = Sequence[tuple[Mapping[str, str], str]]


@contextmanager
def answering(rows: Callable[[str, float], Rows | bytes]) -> Iterator[str]:
    """The URL of a server. rows: what a query has at a moment, or the whole body."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            asked = urllib.parse.parse_qs(self.rfile.read(int(self.headers["Content-Length"])))
            query, time = asked[b"query"][0].decode(), float(asked.get(b"time", [b"0"])[0])
            found = rows(query, time)
            body = found if isinstance(found, bytes) else vector(found, time)
            self._send(200, body)

        def do_GET(self) -> None:
            self._send(404, b"{}")

        def _send(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def vector(rows: Rows, time: float) -> bytes:
    """The answer to an instant query."""
    result = [{"metric": dict(labels), "value": [time, value]} for labels, value in rows]
    data = {"resultType": "vector", "result": result}
    return json.dumps({"status": "success", "data": data}).encode()
