"""The job that puts fitted heads on new videos: their cubes made in memory by the run's own recipes."""
