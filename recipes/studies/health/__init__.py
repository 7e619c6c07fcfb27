"""Whether networks train, and whether all of their layers spike."""
