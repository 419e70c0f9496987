"""The screen of ``llmtop fleet``: a read-only table of instances.

Belongs here: its app, its screen, its rows. Does not belong here: the queries to Prometheus
(``llmtop.fleet``), the dashboard of one instance.
"""
