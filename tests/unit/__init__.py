"""One module each, on values: no process, no network, no waiting."""
