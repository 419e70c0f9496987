"""Reports of measurements: one document from saved results, as HTML, Markdown, JSON or CSV.

Belongs here: reading saved results, deciding which of them can be compared, building the sections
of a report, and writing it. Does not belong here: measuring, engines, processes, the screen.
"""
