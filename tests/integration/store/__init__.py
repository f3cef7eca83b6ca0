"""The state store on a real disk: killed, full, locked, upgraded."""
