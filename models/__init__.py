"""Generator families, training, sampling and metrics; runs alone with torch."""
