"""The `offer.py` of the later releases of the demo. `tide demo` puts one of these into a copy of the shop."""
