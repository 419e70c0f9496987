"""The store that the sources write and the panels read. Plain values, no widgets."""
