"""Frozen networks and hand-made descriptors that turn frames into cubes."""
