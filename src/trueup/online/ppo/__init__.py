"""Proximal policy optimization with every role on one 4-bit base."""
