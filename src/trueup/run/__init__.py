"""A run: its file, its stages, its artifacts on disk, and the order they are built in."""
