"""Numbers that say how good a run is."""
