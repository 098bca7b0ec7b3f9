"""The tagger: which labels a face has; our own small network, or a user's ONNX file."""
