"""review: what a person was asked, and what he said."""

from typing import Any

import sqlalchemy as sa
from alembic import op

import models.tables

revision = '0004'
down_revision = '0003'
branch_labels = None
depends_on = None

KEY = ('episode', 'language', 'line')


def key(*names: str) -> list[sa.Column[Any]]:
    return [sa.Column(name, sa.String(length=32) if name == 'line' else sa.String(), nullable=False) for name in names]


def upgrade() -> None:
    op.create_table('target_lines', *key(*KEY),
    sa.Column('place', sa.Integer(), nullable=False),
    sa.Column('speaker', sa.String(), nullable=False),
    sa.Column('start', sa.BigInteger(), nullable=False),
    sa.Column('end', sa.BigInteger(), nullable=False),
    sa.Column('source', sa.String(), nullable=False),
    sa.Column('text', sa.String(), nullable=False),
    sa.Column('origin', sa.String(length=16), nullable=False),
    sa.Column('flags', sa.JSON(), nullable=False),
    sa.Column('candidates', sa.JSON(), nullable=False),
    sa.PrimaryKeyConstraint(*KEY, name=op.f('pk_target_lines'))
    )
    op.create_table('approvals', *key(*KEY),
    sa.Column('digest', sa.String(length=64), nullable=False),
    sa.Column('who', sa.String(), nullable=False),
    sa.Column('updated', models.tables.UtcDateTime(timezone=True), nullable=False),
    sa.PrimaryKeyConstraint(*KEY, name=op.f('pk_approvals'))
    )
    op.create_table('locks', *key(*KEY),
    sa.Column('text', sa.String(), nullable=False),
    sa.Column('source', sa.String(), nullable=False),
    sa.Column('start', sa.BigInteger(), nullable=False),
    sa.Column('end', sa.BigInteger(), nullable=False),
    sa.Column('who', sa.String(), nullable=False),
    sa.Column('updated', models.tables.UtcDateTime(timezone=True), nullable=False),
    sa.PrimaryKeyConstraint(*KEY, name=op.f('pk_locks'))
    )
    op.create_table('reviews', *key(*KEY[:2]),
    sa.Column('script', sa.String(length=64), nullable=False),
    sa.Column('state', sa.String(length=16), nullable=False),
    sa.Column('since', models.tables.UtcDateTime(timezone=True), nullable=True),
    sa.Column('deadline', sa.Double(), nullable=True),
    sa.Column('on_timeout', sa.String(length=16), nullable=False),
    sa.PrimaryKeyConstraint(*KEY[:2], name=op.f('pk_reviews'))
    )
    op.create_table('review_events',
    sa.Column('id', sa.Integer(), nullable=False),
    *key(*KEY),
    sa.Column('what', sa.String(length=16), nullable=False),
    sa.Column('who', sa.String(), nullable=False),
    sa.Column('at', models.tables.UtcDateTime(timezone=True), nullable=False),
    sa.Column('details', sa.JSON(), nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_review_events'))
    )
    op.create_index('ix_review_events_episode_language', 'review_events', ['episode', 'language'])


def downgrade() -> None:
    for name in ('review_events', 'reviews', 'locks', 'approvals', 'target_lines'):
        op.drop_table(name)
