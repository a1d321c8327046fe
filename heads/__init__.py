"""Tensors in, class scores and attention maps out."""
