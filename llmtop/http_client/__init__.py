"""HTTP requests that control and read servers: engines, Prometheus, webhooks, lists of models.

Here: one set of rules for time-outs, sizes, redirects, proxies, certificates, keys and errors. Not
here: the load generator's transports, which measure, and the meaning of any answer.
"""
