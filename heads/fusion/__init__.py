"""Scores and kernels of several streams or models made one."""
