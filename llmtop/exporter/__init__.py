"""Exports llmtop's data of engines as metrics for Prometheus.

Belongs here: metric families, made from plain values; their text and protobuf formats; the HTTP
page. Does not belong here: reading the values, the command line.
"""
