"""Instances of engines as a Prometheus knows them: asked for, brought into a table, compared.

Belongs here: the PromQL client, the questions of a beat, the state of each instance, groups, the
way to another machine (ssh), the verdict on a canary. Does not belong here: processes of engines,
options, the screen, the command line.
"""
