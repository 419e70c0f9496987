"""The engine's half of the live-option socket (docs/live-socket.md), the same for every engine.

Runs inside an engine's process, in whatever Python (3.10 or newer) that engine uses: the standard
library and nothing else. ``desk`` is where the two threads meet, ``door`` is the socket.
"""
