"""Safety rules of the core, over arbitrary states and observations."""
