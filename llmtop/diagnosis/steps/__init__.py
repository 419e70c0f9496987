"""What the steps of an engine tell: their parts, what each costs, what slowed them. Pure.

Here: figures out of steps alone. Not here: limits, states and causes, which use these figures.
"""
