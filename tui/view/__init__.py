"""The input of every panel, the base class of a panel, and rows that several screens share."""
