"""Figures from the steps of an engine: the parts of their time, costs, a slowdown. Pure.

Belongs here: figures that need steps alone. Does not belong here: limits, states and causes, which
use these figures.
"""
