"""gpu pool: the queue of shards, who makes which shot, what attempts cost, leases."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = '0002'
down_revision = '0001'
branch_labels = None
depends_on = None

INDEXES = {
    'ix_shards_catalog_state': ['catalog', 'state'],
    'ix_shards_episode_language': ['episode', 'language'],
    'ix_shards_run_id': ['run_id'],
    'ix_shards_state_priority': ['state', 'priority'],
}


def new_columns() -> list[tuple[str, sa.Column[Any]]]:
    # With a default of the server's they are added in place: SQLite would have to copy a table that others refer to.
    return [
        ('runs', sa.Column('catalog', sa.String(), nullable=False, server_default='')),
        ('runs', sa.Column('lease_until', sa.Double(), nullable=True)),
        ('shards', sa.Column('catalog', sa.String(), nullable=False, server_default='')),
        ('shards', sa.Column('artifact', sa.String(length=64), nullable=False, server_default='')),
        ('shards', sa.Column('engine', sa.String(), nullable=False, server_default='')),
        ('shards', sa.Column('frames', sa.Integer(), nullable=False, server_default='0')),
        ('shards', sa.Column('estimate_s', sa.Double(), nullable=False, server_default='0')),
        ('shards', sa.Column('priority', sa.Integer(), nullable=False, server_default='0')),
        ('shards', sa.Column('in_flight', sa.Integer(), nullable=False, server_default='1')),
        ('shards', sa.Column('attempt', sa.Integer(), nullable=False, server_default='0')),
        ('shards', sa.Column('tries_left', sa.Integer(), nullable=False, server_default='3')),
        ('shards', sa.Column('not_before', sa.Double(), nullable=False, server_default='0')),
        ('shards', sa.Column('deadline', sa.Double(), nullable=False, server_default='0')),
        ('shards', sa.Column('lease_until', sa.Double(), nullable=True)),
        ('shards', sa.Column('error_class', sa.String(), nullable=False, server_default='')),
        ('shards', sa.Column('error', sa.String(), nullable=False, server_default='')),
    ]


def upgrade() -> None:
    op.create_table('shard_attempts',
    sa.Column('shard', sa.String(), nullable=False),
    sa.Column('attempt', sa.Integer(), nullable=False),
    sa.Column('run_id', sa.String(length=36), nullable=False),
    sa.Column('pool', sa.String(), nullable=False),
    sa.Column('flow_run', sa.String(), nullable=True),
    sa.Column('owner', sa.String(), nullable=False),
    sa.Column('device', sa.String(), nullable=False),
    sa.Column('state', sa.String(length=16), nullable=False),
    sa.Column('dispatched', sa.Double(), nullable=False),
    sa.Column('started', sa.Double(), nullable=True),
    sa.Column('beat', sa.Double(), nullable=True),
    sa.Column('ended', sa.Double(), nullable=True),
    sa.Column('gpu_seconds', sa.Double(), nullable=False),
    sa.Column('startup_seconds', sa.Double(), nullable=False),
    sa.Column('chunks', sa.Integer(), nullable=False),
    sa.Column('frames', sa.Integer(), nullable=False),
    sa.Column('error_class', sa.String(), nullable=False),
    sa.Column('error', sa.String(), nullable=False),
    sa.ForeignKeyConstraint(['run_id'], ['runs.id'], name=op.f('fk_shard_attempts_run_id_runs')),
    sa.ForeignKeyConstraint(['shard'], ['shards.id'], name=op.f('fk_shard_attempts_shard_shards')),
    sa.PrimaryKeyConstraint('shard', 'attempt', name=op.f('pk_shard_attempts'))
    )
    op.create_index('ix_shard_attempts_run_id', 'shard_attempts', ['run_id'])
    op.create_table('shard_shots',
    sa.Column('recipe', sa.String(length=64), nullable=False),
    sa.Column('shard', sa.String(), nullable=False),
    sa.Column('shot', sa.String(length=32), nullable=False),
    sa.Column('flagged', sa.Boolean(), nullable=False),
    sa.Column('error_class', sa.String(), nullable=False),
    sa.Column('error', sa.String(), nullable=False),
    sa.ForeignKeyConstraint(['shard'], ['shards.id'], name=op.f('fk_shard_shots_shard_shards')),
    sa.PrimaryKeyConstraint('recipe', name=op.f('pk_shard_shots'))
    )
    op.create_index('ix_shard_shots_shard', 'shard_shots', ['shard'])
    for table, column in new_columns():
        op.add_column(table, column)
    for name, columns in INDEXES.items():
        op.create_index(name, 'shards', columns)
    op.execute("UPDATE shards SET state = 'failed' WHERE state = 'running'")  # nobody would ever take them for dead


def downgrade() -> None:
    for name in INDEXES:
        op.drop_index(name, 'shards')
    for table, column in new_columns():
        op.drop_column(table, column.name)
    op.drop_table('shard_shots')
    op.drop_table('shard_attempts')
