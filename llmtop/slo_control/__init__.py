"""Keeps a service level objective: the controller of ``hold``, the search of ``tune``.

What belongs here: decisions, as pure functions and objects without a clock. What does not:
sockets, files and timers; ``llmtop.operations`` carries the decisions out.
"""
