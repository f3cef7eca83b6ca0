"""Migrations on real databases: SQLite, and every PostgreSQL of this machine."""
