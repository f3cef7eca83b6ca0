"""Properties of the engine's pure parts."""
