"""Commands that write, show and judge what was measured before: reports, recordings, checks.

Does not belong here: what is in a report (``llmtop.report``) or how results are compared.
"""
