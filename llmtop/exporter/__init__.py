"""What llmtop knows of engines, as metrics that a Prometheus scrapes.

Belongs here: families of metrics, made from plain facts; their text and protobuf forms; the HTTP
page. Does not belong here: how the facts are read, the command line.
"""
