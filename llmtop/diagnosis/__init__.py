"""What the numbers of an engine show of its state, and why. Pure.

Belongs here: the state of an engine under its load, the causes behind it with their evidence, and
what the steps of its scheduler are made of. Does not belong here: reading an engine
(``engines.introspection``), forecasts of other settings (``forecast``), layout of screens.
"""
