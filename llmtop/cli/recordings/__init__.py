"""Commands about saved results and recordings: ``report``, ``record``, ``replay``, ``check``.

The contents of reports are in ``llmtop.report``, the comparison of results in
``llmtop.regression``.
"""
