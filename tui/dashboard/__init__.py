"""Behind the screen: the controller, the runtime of one screen, the tour, the palette's entries."""
