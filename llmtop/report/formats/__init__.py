"""The output formats of a report: HTML with its charts and style sheet, Markdown, CSV.

Does not belong here: the content of a report.
"""
