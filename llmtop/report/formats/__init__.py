"""A report as text: the HTML page with its drawings and style sheet, Markdown, CSV.

Does not belong here: what a report says.
"""
