"""The evaluation of a generator under a pinned protocol; `models.evaluate` is its command."""
