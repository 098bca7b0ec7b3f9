"""Metrics on features and pictures; each is pure: arrays in, a number out."""
