"""One saved state per phase: what a released Tidegate wrote, every later one must read."""
