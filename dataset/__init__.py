"""The data steps as plain functions: pictures, faces, labels, manifests, and the store."""
