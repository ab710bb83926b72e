"""Alembic environment: the ledger hands its own connection over; from the command line, `-x url=…` names it.

The next one: `alembic -c models/migrations/alembic.ini -x url=sqlite:///scratch.db revision --autogenerate -m "…"`.
"""

import sqlalchemy as sa
from alembic import context

from models.tables import Table


def migrate(connection: sa.Connection) -> None:
    context.configure(connection=connection, target_metadata=Table.metadata, render_as_batch=True, compare_type=True)
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    migrate(given)
else:
    url = context.get_x_argument(as_dictionary=True)["url"]
    with sa.create_engine(url).connect() as own:
        migrate(own)
        own.commit()
