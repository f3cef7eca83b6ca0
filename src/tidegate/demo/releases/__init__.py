"""The `offer.py` of later releases of the shop. `tide demo` puts one of these into a copy of it."""
