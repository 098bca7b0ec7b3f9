"""Draws with the champion; its functions also serve the command line."""
