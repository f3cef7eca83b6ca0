"""What changes a database's schema, and what is known of the change.

statements   SQL text, taken apart into statements
scripts      the migrations that travel with an artifact as SQL files
sqlite_catalog   what the schema of a SQLite database consists of

Which of them runs when is decided in `core.migrations`, what a change of the schema means in `core.catalogs`.
"""
