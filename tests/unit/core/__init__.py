"""The core, module by module: states and observations in, decisions out."""
