"""What a store holds of engines, for those who read it without a screen: the exporter, alert rules.

Belongs here: totals between two looks, the facts of a metrics page, what a rule is asked about, the
sources that serve a page and follow the rules. Does not belong here: families of metrics
(``llmtop.exporter``), the rules themselves (``llmtop.alerts``), anything that is drawn.
"""
