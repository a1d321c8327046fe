"""Catalogues of videos: ids, labels, splits and truth."""
