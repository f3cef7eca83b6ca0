"""What changes a database's schema, and what is known of the change.

statements         SQL text, taken apart into statements
scripts            the migrations that travel with an artifact as SQL files
session            what is asked of a database: a port, with an implementation for each engine
sqlite, postgres   the implementations; sqlite_catalog, postgres_catalog: what a schema consists of
databases          the session for an address
ledger             Tidegate's own tables in the database of an app
runner             runs scripts, each exactly once
worker             the process that does
trials             tries them out on a copy: scratch (the copy), seeds (its rows)

Which of them runs when is decided in `core.migrations`, what a change of the schema means in `core.catalogs`,
what follows from the ledger in `core.ledgers`.
"""
