"""Story."""

COMMANDS = ()
