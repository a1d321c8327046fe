"""Looking into a store, and its exchange with other programs."""
