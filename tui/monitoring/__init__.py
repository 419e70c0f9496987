"""Facts of the store for the exporter and the alert rules, which need no screen.

Belongs here: totals between two readings, the facts of a metrics page, the inputs of a rule, the
sources that serve a page and evaluate the rules. Does not belong here: metric families
(``llmtop.exporter``), the rules themselves (``llmtop.alerts``), drawing.
"""
