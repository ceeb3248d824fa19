"""The 4-bit base, and the adapters that are the roles on it."""
