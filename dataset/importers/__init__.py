"""Readers of pictures that no board sent: one kind of set a file, none of them stores anything."""
