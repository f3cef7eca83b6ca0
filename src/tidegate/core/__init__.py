"""The functional core: values in, values out.

No clock, no I/O, no randomness, no logging, no async: kept so by import-linter and tests/meta.
Neighbours: `tidegate.ports` speaks in these values, `tidegate.engine` calls `advance` and `reconcile`.
"""
