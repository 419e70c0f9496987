"""The screen of ``llmtop fleet``: a table of instances, and nothing that acts on them.

Belongs here: its app, its screen, its rows. Does not belong here: how a Prometheus is asked
(``llmtop.fleet``), the dashboard of one instance.
"""
