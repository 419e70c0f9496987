"""HTTP requests that control and read servers: engines, Prometheus, webhooks, lists of models.

Belongs here: one set of rules for time limits, sizes, redirects, proxies, certificates, keys and
errors. Does not belong here: the transports of the load generator, and the meaning of an answer.
"""
