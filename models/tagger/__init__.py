"""The tagger: which labels a face has; our own small network, or a user's ONNX file.

model, train, onnx and scores know arrays alone; home, machine_labels and commands know a store.
The command line is `models/tag.py`.
"""
