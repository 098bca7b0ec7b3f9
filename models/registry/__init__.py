"""The registered model: its client, versions and their files, the gate, promotion and its log.

Plain Python over MLflow, which is imported only when it is used, and without Dagster. Assets,
commands and the studio call it; training and evaluation live in their own packages.
"""
