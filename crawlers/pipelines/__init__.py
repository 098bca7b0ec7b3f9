"""The item pipelines, one concern a file: policy, blobs, recorder."""
