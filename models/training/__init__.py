"""Training: loop, step, losses, data, checkpoints, and what a run leaves in its folder.

`loop.train` is the one entry; `python -m models.train` is its command.
"""
