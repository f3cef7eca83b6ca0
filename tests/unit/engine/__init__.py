"""The loop and its effects, against adapters of a few lines."""
