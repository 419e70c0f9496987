"""Ports: free or not as a server would find it, and who holds one."""

from __future__ import annotations

import os
import socket

import pytest

from llmtop.engines.host import ports
from llmtop.engines.host.ports import PortError

HOST = "127.0.0.1"


def test_a_port_in_use_has_a_holder() -> None:
    with socket.create_server((HOST, 0)) as server:
        port = server.getsockname()[1]
        assert not ports.is_free(HOST, port)
        holder = ports.holder(port)
        assert holder is not None and holder.pid == os.getpid()
        assert str(holder).startswith(f"pid {os.getpid()} (")
        assert ports.listener([os.getpid()], port) is not None
        assert ports.listener([os.getppid()], port) is None
    assert ports.is_free(HOST, port)
    assert ports.holder(port) is None
    assert ports.listener([os.getpid()], port) is None


def test_listening_everywhere_takes_the_port_here_too() -> None:
    with socket.create_server(("0.0.0.0", 0)) as server:
        assert not ports.is_free(HOST, server.getsockname()[1])


def test_bound_but_not_yet_listening_is_taken() -> None:
    """vLLM binds first and loads for a minute before it listens."""
    with socket.socket() as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((HOST, 0))
        port = bound.getsockname()[1]
        assert not ports.is_free(HOST, port)
        assert ports.holder(port) is None


def test_lingering_connections_of_a_former_server_do_not_count() -> None:
    with socket.create_server((HOST, 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection((HOST, port)):
            accepted, _ = server.accept()
            accepted.close()  # the server's side closes first and is left in TIME_WAIT
    with socket.socket() as plain, pytest.raises(OSError):
        plain.bind((HOST, port))
    assert ports.is_free(HOST, port)


def test_the_next_free_port_skips_what_is_taken() -> None:
    with socket.create_server((HOST, 0)) as server:
        port = server.getsockname()[1]
        found = ports.next_free(HOST, port)
        assert found > port
        assert ports.next_free(HOST, port, taken={found}) > found
    with pytest.raises(PortError, match="no port from 65536 on"):
        ports.next_free(HOST, 65536)


def test_an_address_that_cannot_be_used_is_said_to_be_so() -> None:
    with pytest.raises(PortError, match=r"203\.0\.113\.7 is not an address of this machine"):
        ports.is_free("203.0.113.7", 8000)
    with pytest.raises(PortError, match="not a host name"):
        ports.is_free("\x1b[31m", 8000)


def test_a_listener_is_held_until_it_is_closed() -> None:
    with socket.create_server((HOST, 0)) as server:
        found = ports.listener([os.getpid()], server.getsockname()[1])
        assert found is not None and found.held()
    assert not found.held()
