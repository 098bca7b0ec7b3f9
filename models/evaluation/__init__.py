"""The evaluation of a generator under a pinned protocol; `models.evaluate` is its command.

`evaluate` is the whole of it, `results.metrics_for_set` gives the metrics of one set of fakes; the
formulas are in `models.metrics`.
"""
