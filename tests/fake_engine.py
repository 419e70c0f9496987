"""An engine-like program for tests of supervision: /health, and every bad habit on request."""

from __future__ import annotations

import argparse
import http.server
import os
import signal
import subprocess
import sys
import threading
import time

SLEEPER = "import signal, time; {ignore}time.sleep(120)"


def crash(when: str, exit_code: int) -> None:
    while not os.path.exists(when):
        time.sleep(0.02)
    os._exit(exit_code)


def main() -> None:
    ask = argparse.ArgumentParser()
    ask.add_argument("--host", default="127.0.0.1")
    ask.add_argument("--port", type=int, required=True)
    ask.add_argument("--api-key")
    ask.add_argument("--delay", type=float, default=0.0, help="seconds before it listens")
    ask.add_argument("--wait-for", help="a file that must exist before it listens")
    ask.add_argument("--say", action="append", default=[], help="a line for the log, at the start")
    ask.add_argument("--log-noise", action="store_true", help="what no terminal should see")
    ask.add_argument("--die", type=int, help="exit with this code instead of listening")
    ask.add_argument("--crash-when", help="a file: exit once it exists")
    ask.add_argument("--exit-code", type=int, default=1, help="of --crash-when")
    ask.add_argument("--ignore-term", action="store_true")
    ask.add_argument("--children", type=int, default=0, help="processes that survive this one")
    ask.add_argument("--grandchild-session", action="store_true", help="one in its own session")
    ask.add_argument("--quiet-child", action="store_true", help="one that writes no log")
    ask.add_argument("--never-listen", action="store_true")
    ask.add_argument("--health", type=int, default=200, help="the status of /health")
    args = ask.parse_args()

    print(f"fake engine, arguments {vars(args)}", flush=True)
    for line in args.say:
        print(line, flush=True)
    if args.log_noise:
        noise = b"\x1b[2J\x1b]0;owned\x07red \x1b[31malert\x1b[0m \xff\xfe\x80 bell\x07\n"
        sys.stdout.buffer.write(noise + b"x" * 2**20 + b"\n" + "ünï\u202eçode\n".encode())
        sys.stdout.flush()
    if args.ignore_term:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    ignore = "signal.signal(signal.SIGTERM, signal.SIG_IGN); " if args.ignore_term else ""
    for _ in range(args.children):
        subprocess.Popen([sys.executable, "-c", SLEEPER.format(ignore=ignore)])
    if args.grandchild_session:
        subprocess.Popen(
            [sys.executable, "-c", SLEEPER.format(ignore=ignore)], start_new_session=True
        )
    if args.quiet_child:
        subprocess.Popen(
            [sys.executable, "-c", SLEEPER.format(ignore=ignore)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    time.sleep(args.delay)
    while args.wait_for and not os.path.exists(args.wait_for):
        time.sleep(0.02)
    if args.die is not None:
        sys.exit(args.die)
    if args.crash_when:
        threading.Thread(target=crash, args=(args.crash_when, args.exit_code)).start()
    if args.never_listen:
        time.sleep(120)

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(args.health)
            self.end_headers()

        def log_message(self, format: str, *values: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer((args.host, args.port), Answer)
    print("listening", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
