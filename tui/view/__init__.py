"""What every panel is given: the view of the store, and the base class of a panel."""
