"""From videos to a store: one plan, a supervisor, workers."""
