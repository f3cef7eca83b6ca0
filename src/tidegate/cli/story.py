"""Story."""
COMMANDS = ()
