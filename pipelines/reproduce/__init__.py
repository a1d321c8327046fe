"""`vidatt reproduce`: the tables of papers as data, and the commands that make their rows."""
