"""Comparisons: entrants trained and measured alike on one manifest, reported side by side."""
