"""All uses of Textual's private names. Written for Textual 8.2.8; no other package uses them.

``names`` lists them. A test checks that the installed Textual still has them, and that no other
module of ``tui`` uses one.
"""
