"""Attention of a fitted head for people to look at: as pictures, as films and as arrays."""
