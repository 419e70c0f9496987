"""Keeps a service level objective (SLO): the controller of ``hold``, the search of ``tune``.

Belongs here: decisions, as pure functions and objects without a clock. Does not belong here:
sockets, files and timers; ``llmtop.operations`` applies the decisions.
"""
