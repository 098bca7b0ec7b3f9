"""The generator as an MLflow model that needs MLflow and torch, and nothing of this repository."""
