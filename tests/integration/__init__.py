"""Real files, processes and programs, on loopback and in folders of their own."""
