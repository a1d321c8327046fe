"""The version: what a marker, a run and `--version` name. The face imports it from here, and so does every room."""

__version__ = "0.1.0"
