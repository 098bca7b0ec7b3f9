"""The API flavours: pure functions from entries to records, and how each reads a search."""
