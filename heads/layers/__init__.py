"""The bricks of the heads."""
