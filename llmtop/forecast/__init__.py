"""Forecasts the performance of an engine under other settings or another load.

Belongs here: the model of step times and its fit, the scheduler in virtual time, answers with
intervals, and the reasons why a question is refused. All of it is pure: no clock, no socket, no
file. Does not belong here: reading an engine, and printing.
"""
