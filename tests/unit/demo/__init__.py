"""The demo's numbers, users and files."""
