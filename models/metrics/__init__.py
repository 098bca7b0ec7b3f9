"""Metrics of generators on features and pictures: arrays in, a number out.

Beside them stand the feature extractors and the pinned download of their weights; caches,
protocol and the order of an evaluation are in `models.evaluation`.
"""
