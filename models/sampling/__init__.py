"""Pictures from a generator: drawing by seeds, tables, interpolation, clips and videos.

`draw` is what all others stand on; `python -m models.sample` is the command.
"""
