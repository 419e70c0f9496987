"""All use of Textual's private names. Written for Textual 8.2.8; no other room may use them.

``names`` lists them; a test checks that an installed Textual still has them, and that no other
module of ``tui`` uses one.
"""
