"""Stories of users, told to the installed command with real processes."""
