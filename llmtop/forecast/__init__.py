"""A forecast of an engine: what it would do under other settings or another load.

What belongs here: the model of a step's time and its fit, the scheduler in virtual time, answers
with intervals, and the reasons for which a question is refused. All of it is pure: no clock, no
socket, no file. What does not: reading an engine, and printing.
"""
