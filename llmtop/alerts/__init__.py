"""Alert rules in the words of the screen: when they begin and end, and who is notified.

Belongs here: the expressions, the state of each rule for each engine, commands, webhooks, the bell.
Does not belong here: how numbers are read, the configuration file, the command line.
"""
