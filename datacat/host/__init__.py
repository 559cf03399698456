"""The host room."""
