"""Dagster assets, one module a stage: thin, each calls one function of a lower layer."""
