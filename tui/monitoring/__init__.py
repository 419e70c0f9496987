"""Facts of the store for readers without a screen: the exporter and alert rules.

Belongs here: totals between two readings, the facts of a metrics page, the inputs of a rule, the
sources that serve a page and evaluate the rules. Does not belong here: families of metrics
(``llmtop.exporter``), the rules themselves (``llmtop.alerts``), anything that is drawn.
"""
