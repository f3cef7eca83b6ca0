"""The router on the real HAProxy."""
