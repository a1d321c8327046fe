"""The run folder, and what every job on one needs."""
