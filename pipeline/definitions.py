"""The code location that Dagster loads."""

from pipeline.build import build_defs

defs = build_defs()
