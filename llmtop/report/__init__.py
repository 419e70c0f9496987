"""Reports of measurements: one document from saved results, as HTML, Markdown, JSON or CSV.

Belongs here: reading saved results, what can be compared, the sections of a report, and how they
are written. Does not belong here: measuring, engines, processes, the screen.
"""
