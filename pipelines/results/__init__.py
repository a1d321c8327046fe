"""From runs and files of scores to measures: evaluate, compare, fuse, the official protocols."""
