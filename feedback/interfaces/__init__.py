"""Labelling screens of Label Studio."""
