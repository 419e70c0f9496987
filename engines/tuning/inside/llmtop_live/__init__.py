"""The engine's side of the live socket, the same for every engine.

The protocol: docs/reference/live-socket.md.

It runs inside an engine's process, in that engine's Python (3.10 or newer), with only the standard
library. ``tunables`` connects the engine's thread and the socket threads for options,
``introspection`` for internal data; ``socket_server`` is the socket.
"""
