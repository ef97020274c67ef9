"""Snapshots: which files of a workspace jobs see, published once per content."""
