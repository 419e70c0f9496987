"""Values derived from samples: series, cost, effects of a change, marks. Pure: no I/O, no clock."""
