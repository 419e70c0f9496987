"""The live-option socket: a Unix socket with one JSON object in each line, and one answer line.

Everything here runs in daemon threads. Their errors are logged and affect nothing else: an engine
without a socket is an engine without live options.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import socket
import stat
import threading
import time
from typing import Any

from .introspection import PROTOCOL as INTROSPECTION_PROTOCOL
from .introspection import Introspection
from .tunables import NAME_LIMIT, PROTOCOL, Tunables, clean

LINE_LIMIT = 64 * 1024
CHANGES_LIMIT = 16
CONNECTIONS = 32
LONGEST_WAIT_S = 30.0
SEND_TIMEOUT_S = 30.0
RECOVERY_S = 1.0


class SocketError(Exception):
    """Why the socket cannot be opened, in a few words."""


def listen(path: str) -> socket.socket:
    """A listening socket at ``path``, of mode 0600 in a private folder.

    A socket file without a listener is replaced; any other file is kept.
    """
    folder = os.path.dirname(path) or "."
    os.makedirs(folder, mode=0o700, exist_ok=True)
    found = os.lstat(folder)
    if not stat.S_ISDIR(found.st_mode):
        raise SocketError("the socket's folder is not a folder")
    if found.st_uid != os.geteuid():
        raise SocketError("the socket's folder belongs to another user")
    if stat.S_IMODE(found.st_mode) & 0o077:
        raise SocketError("the socket's folder is open to others (it must be mode 0700)")
    _clear(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # No umask: it affects the whole process, and the engine writes files in other threads.
        # Until the chmod, the folder's mode protects the socket.
        listener.bind(path)
        os.chmod(path, 0o600)
        listener.listen(CONNECTIONS)
    except BaseException:
        listener.close()
        raise
    return listener


def _clear(path: str) -> None:
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise SocketError("the socket's path exists and is not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
    raise SocketError("another process listens on this socket")


def answer(
    tunables: Tunables,
    line: bytes,
    log: logging.Logger,
    introspection: Introspection | None = None,
) -> dict[str, Any]:
    """The answer to one request line, valid or not.

    Without ``introspection`` this is protocol 1. With it, ``get`` and ``set`` use protocol 2 if the
    request names it. Older clients name none and get protocol 1.
    """
    begun = time.perf_counter()
    try:
        request = json.loads(line)
    except (ValueError, RecursionError):
        return _error("not JSON")
    if not isinstance(request, dict):
        return _error("not an object")
    op = request.get("op")
    protocol = PROTOCOL
    if introspection is not None:
        found = introspection.answer(request)
        if found is not None:
            return found
        if request.get("protocol") == INTROSPECTION_PROTOCOL:
            protocol = INTROSPECTION_PROTOCOL
    if op == "get":
        inside = {} if introspection is None else introspection.describe()
        return {"ok": True, "protocol": protocol, **tunables.state(), **inside}
    if op != "set":
        return _error("unknown op; there are get and set")
    return {**_set(tunables, request, log, begun), "protocol": protocol}


def _set(
    tunables: Tunables, request: dict[str, Any], log: logging.Logger, begun: float
) -> dict[str, Any]:
    changes = request.get("changes")
    evict = request.get("evict", False)
    by = request.get("by", "")
    wait_s = request.get("wait_s", 1.0)
    if not isinstance(changes, dict) or not 1 <= len(changes) <= CHANGES_LIMIT:
        return _error(f"changes must be an object with 1 to {CHANGES_LIMIT} options")
    if not isinstance(evict, bool) or not isinstance(by, str):
        return _error("evict must be true or false, by must be text")
    if (
        isinstance(wait_s, bool)
        or not isinstance(wait_s, (int, float))
        or not math.isfinite(wait_s)
    ):
        return _error("wait_s must be a number of seconds")
    results = tunables.submit(changes, evict, by, min(max(wait_s, 0.0), LONGEST_WAIT_S))
    for item in results:
        log.info(
            "llmtop: %s %s -> %s %s%s, requested by %s",
            item["option"],
            *(tunables.words(item["option"], item[key]) for key in ("from", "to")),
            item["outcome"],
            f" ({item['reason']})" if item["reason"] else "",
            clean(by, NAME_LIMIT) or "an unknown user",
        )
    return {
        "ok": True,
        "evicted": sum(item["evicted"] for item in results),
        "ack_ms": round((time.perf_counter() - begun) * 1e3, 3),
        "changes": results,
    }


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _error(text: str) -> dict[str, Any]:
    return {"ok": False, "protocol": PROTOCOL, "error": text}


class SocketServer:
    """Opens the socket at ``path`` and answers on it in its own threads.

    introspection: internal data of the engine; without it the socket uses protocol 1.
    """

    def __init__(
        self,
        path: str,
        tunables: Tunables,
        log: logging.Logger,
        introspection: Introspection | None = None,
    ) -> None:
        self._path = path
        self._tunables = tunables
        self._log = log
        self._introspection = introspection
        self._open: dict[socket.socket, float] = {}  # idle since, monotonic seconds; inf if busy
        self._lock = threading.Lock()

    def open(self) -> threading.Thread:
        """Start answering; returns at once."""
        thread = threading.Thread(target=self._receive, name="llmtop-live", daemon=True)
        thread.start()
        return thread

    def _receive(self) -> None:
        try:
            listener = listen(self._path)
        except Exception as error:
            self._log.warning("llmtop: no live options: %s", error)
            return
        self._log.info("llmtop: live options on %s", self._path)
        while True:
            try:
                connection, _ = listener.accept()
                self._start_thread(connection)
            except Exception as error:  # no free file descriptor or thread: retry later
                self._log.warning("llmtop: a live-option connection was lost: %s", error)
                time.sleep(RECOVERY_S)

    def _start_thread(self, connection: socket.socket) -> None:
        if not self._make_room():
            connection.close()
            return
        with self._lock:
            self._open[connection] = time.monotonic()
        try:
            threading.Thread(
                target=self._serve, args=(connection,), name="llmtop-live", daemon=True
            ).start()
        except Exception:
            self._forget(connection)
            connection.close()
            raise

    def _make_room(self) -> bool:
        """At the limit, close the connection that was idle longest. False if all are busy."""
        with self._lock:
            if len(self._open) < CONNECTIONS:
                return True
            idle = [one for one, since in self._open.items() if since < math.inf]
            if not idle:
                return False
            oldest = min(idle, key=self._open.__getitem__)
            del self._open[oldest]
            with contextlib.suppress(OSError):
                oldest.shutdown(socket.SHUT_RDWR)
            return True

    def _set_idle_since(self, connection: socket.socket, since: float) -> None:
        with self._lock:
            if connection in self._open:
                self._open[connection] = since

    def _forget(self, connection: socket.socket) -> None:
        with self._lock:
            self._open.pop(connection, None)

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection:
                connection.settimeout(SEND_TIMEOUT_S)
                self._answer_lines(connection)
        except OSError:
            pass  # the peer closed it, or does not read
        except Exception:
            self._log.exception("llmtop: a live-option connection failed")
        finally:
            self._forget(connection)

    def _answer_lines(self, connection: socket.socket) -> None:
        held = b""
        while True:
            try:
                received = connection.recv(LINE_LIMIT)
            except TimeoutError:
                continue  # an open connection may stay idle without limit
            if not received:
                return
            held += received
            *lines, held = held.split(b"\n")
            self._set_idle_since(connection, math.inf)
            for line in lines:
                if len(line) > LINE_LIMIT:
                    break
                response = answer(self._tunables, line, self._log, self._introspection)
                connection.sendall(_encode(response))
            else:
                self._set_idle_since(connection, time.monotonic())
                if len(held) <= LINE_LIMIT:
                    continue
            connection.sendall(_encode(_error("line longer than 64 KiB")))
            return


def _encode(response: dict[str, Any]) -> bytes:
    # JSON may contain a lone surrogate, which UTF-8 cannot encode: replace it.
    return json.dumps(response, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
