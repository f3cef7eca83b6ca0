"""The imperative shell: one loop that observes, lets the core decide, commits, and carries out."""
