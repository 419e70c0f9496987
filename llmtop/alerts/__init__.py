"""Alert rules, with the names that the screen uses: when alerts begin and end, and their delivery.

Belongs here: conditions, the state of each rule for each engine, commands, webhooks, the bell.
Does not belong here: reading metrics, the configuration file, the command line.
"""
