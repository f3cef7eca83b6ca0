"""Tidegate: lets a release in a little at a time, watches it, and shuts by itself when the numbers turn.

Hides nothing and imports nothing: the package's root holds the version, the one place where it is written.
The house is described in docs/architecture.md; `tidegate.cli` is the command line, `tidegate.core` the
part that decides.
"""

__version__ = "0.1.0"
