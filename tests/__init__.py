"""Everything that proves Tidegate: see CONTRIBUTING.md for what belongs in which folder."""
