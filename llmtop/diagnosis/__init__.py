"""Diagnoses an engine from its numbers: its state under load, and the causes. Pure.

Belongs here: the state, the causes with their evidence, and the model of step times. Does not
belong here: reading an engine (``engines.introspection``), forecasts of other settings
(``forecast``), and the layout of screens.
"""
