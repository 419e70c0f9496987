"""Value types and Protocols that every room of ``engines`` shares.

Plain values only: no file, no socket, no process, and no import from another room of ``engines``.
"""
