"""Other people's weights: read without running anything of theirs, and brought into our form."""
