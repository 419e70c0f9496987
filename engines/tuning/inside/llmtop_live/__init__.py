"""The engine's half of the live socket, the same for every engine.

The protocol: docs/reference/live-socket.md.

Runs inside an engine's process, in whatever Python (3.10 or newer) that engine uses: the standard
library and nothing else. ``tunables`` is where the two threads meet for options, ``introspection``
for what the engine shows of its inside, ``socket_server`` is the socket.
"""
