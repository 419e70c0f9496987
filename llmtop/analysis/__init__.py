"""Values derived from samples: cost, effects of a change, marks. Pure: no file, no socket."""
