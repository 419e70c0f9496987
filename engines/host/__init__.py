"""This machine: processes, ports, private files, log files and the redaction of secrets.

Nothing in here knows an engine kind. What a log line means belongs in ``logs``.
"""
