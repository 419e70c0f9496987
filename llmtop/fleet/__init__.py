"""Engine instances that a Prometheus scrapes: their metrics, their states, and comparisons.

Belongs here: the PromQL client, the queries of a poll, the state of each instance, groups, llmtop
on another machine (ssh), the verdict on a canary. Does not belong here: processes of engines,
options, the screen, the command line.
"""
