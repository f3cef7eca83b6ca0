"""The parts of the process runtime that need no instance."""
