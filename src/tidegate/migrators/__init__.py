"""What changes a database's schema, and what is known of the change.

statements   SQL text, taken apart into statements
scripts      the migrations that travel with an artifact as SQL files

Which of them runs when is decided in `core.migrations`.
"""
