"""The sentences and number formats that the command line and the screen share."""
