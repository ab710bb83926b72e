"""progress: how far a shard is, whoever made it."""

import sqlalchemy as sa
from alembic import op

revision = '0005'
down_revision = '0004'
branch_labels = None
depends_on = None

NEW = ('chunks_done', 'chunks_total')


def upgrade() -> None:
    for name in NEW:
        op.add_column('shard_attempts', sa.Column(name, sa.Integer(), nullable=False, server_default='0'))


def downgrade() -> None:
    for name in NEW:
        op.drop_column('shard_attempts', name)
