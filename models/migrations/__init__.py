"""Alembic migrations of `models/tables.py`; `tasks/ledger.py` applies them when it opens a database."""
