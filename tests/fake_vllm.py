"""A program that is started as ``vllm serve`` is, and answers as it does, over TLS where asked to.

Each look at its metrics finds 50 more tokens.
"""

from __future__ import annotations

import json
import ssl
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LABELS = 'engine="0",model_name="m"'


class FakeVllm(BaseHTTPRequestHandler):
    """The pages that llmtop asks for, and one endless kind of completion."""

    protocol_version = "HTTP/1.1"
    looks = 0

    def do_GET(self) -> None:
        pages = {
            "/health": "",
            "/version": json.dumps({"version": "0.32.0"}),
            "/v1/models": json.dumps({"data": [{"id": "m", "owned_by": "vllm"}]}),
        }
        if self.path == "/metrics":
            FakeVllm.looks += 1
            self.answer(metrics(FakeVllm.looks))
        elif self.path in pages and not (self.path == "/health" and "--no-health" in sys.argv):
            self.answer(pages[self.path])
        else:
            self.answer("", 404)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        events: list[dict[str, object]] = [
            {"choices": [{"index": 0, "text": "a "}]} for _ in range(4)
        ]
        usage = {"prompt_tokens": 128, "completion_tokens": 4, "total_tokens": 132}
        events.append({"choices": [], "usage": usage})
        text = "".join(f"data: {json.dumps(event)}\n\n" for event in events)
        self.answer(text + "data: [DONE]\n\n", kind="text/event-stream")

    def answer(self, text: str, status: int = 200, kind: str = "text/plain") -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def metrics(looks: int) -> str:
    return (
        f"process_start_time_seconds {time.time() - 1000:.0f}\n"
        f"vllm:num_requests_running{{{LABELS}}} 2\n"
        f"vllm:num_requests_waiting{{{LABELS}}} 0\n"
        f"vllm:kv_cache_usage_perc{{{LABELS}}} 0.25\n"
        f"vllm:generation_tokens_total{{{LABELS}}} {50 * looks}\n"
        f"vllm:prompt_tokens_total{{{LABELS}}} {9 * looks}\n"
    )


def server(host: str, port: int, certificate: str = "", key: str = "") -> ThreadingHTTPServer:
    """Such a server, not yet serving."""
    made = ThreadingHTTPServer((host, port), FakeVllm)
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key or None)
        made.socket = context.wrap_socket(made.socket, server_side=True)
    return made


def main() -> None:
    flags = dict(zip(sys.argv[1:], sys.argv[2:], strict=False))
    certificate = flags.get("--ssl-certfile", "")
    made = server(
        flags["--host"], int(flags["--port"]), certificate, flags.get("--ssl-keyfile", "")
    )
    print("INFO:     Application startup complete.", flush=True)
    made.serve_forever()


if __name__ == "__main__":
    main()
