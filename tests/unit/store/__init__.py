"""The records, the sentences and the choices of the state store."""
