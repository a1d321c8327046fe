"""Attention drawn for people."""
