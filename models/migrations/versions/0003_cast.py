"""cast: voices of a series' speakers, and who consented to what."""

import sqlalchemy as sa
from alembic import op

revision = '0003'
down_revision = '0002'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('cast_members',
    sa.Column('series', sa.String(), nullable=False),
    sa.Column('number', sa.Integer(), autoincrement=False, nullable=False),
    sa.Column('name', sa.String(), nullable=False),
    sa.Column('gender', sa.String(length=8), nullable=False),
    sa.Column('person', sa.String(), nullable=False),
    sa.Column('merged_into', sa.Integer(), nullable=True),
    sa.Column('author', sa.String(), nullable=False),
    sa.Column('updated', sa.DateTime(timezone=True), nullable=False),
    sa.PrimaryKeyConstraint('series', 'number', name=op.f('pk_cast_members'))
    )
    op.create_table('cast_speakers',
    sa.Column('episode', sa.String(), nullable=False),
    sa.Column('speaker', sa.String(), nullable=False),
    sa.Column('series', sa.String(), nullable=False),
    sa.Column('member', sa.Integer(), nullable=False),
    sa.Column('found', sa.String(length=8), nullable=False),
    sa.Column('likeness', sa.Double(), nullable=True),
    sa.Column('name', sa.String(), nullable=False),
    sa.Column('pitch_hz', sa.Double(), nullable=True),
    sa.Column('embedding', sa.JSON(), nullable=False),
    sa.Column('space', sa.String(length=64), nullable=False),
    sa.Column('updated', sa.DateTime(timezone=True), nullable=False),
    sa.ForeignKeyConstraint(['series', 'member'], ['cast_members.series', 'cast_members.number'],
                            name=op.f('fk_cast_speakers_series_cast_members')),
    sa.PrimaryKeyConstraint('episode', 'speaker', name=op.f('pk_cast_speakers'))
    )
    op.create_index('ix_cast_speakers_series_member', 'cast_speakers', ['series', 'member'])
    op.create_table('cast_voices',
    sa.Column('series', sa.String(), nullable=False),
    sa.Column('member', sa.Integer(), autoincrement=False, nullable=False),
    sa.Column('language', sa.String(), nullable=False),
    sa.Column('synthesizer', sa.String(), nullable=False),
    sa.Column('voice', sa.String(), nullable=False),
    sa.Column('share', sa.Integer(), nullable=False),
    sa.Column('chosen', sa.String(length=8), nullable=False),
    sa.Column('author', sa.String(), nullable=False),
    sa.Column('updated', sa.DateTime(timezone=True), nullable=False),
    sa.ForeignKeyConstraint(['series', 'member'], ['cast_members.series', 'cast_members.number'],
                            name=op.f('fk_cast_voices_series_cast_members')),
    sa.PrimaryKeyConstraint('series', 'member', 'language', 'synthesizer', name=op.f('pk_cast_voices')),
    sa.UniqueConstraint('series', 'language', 'synthesizer', 'voice', 'share', name=op.f('uq_cast_voices_series'))
    )
    op.create_table('consents',
    sa.Column('id', sa.Integer(), nullable=False),
    sa.Column('person', sa.String(), nullable=False),
    sa.Column('kind', sa.String(length=8), nullable=False),
    sa.Column('scope', sa.String(), nullable=False),
    sa.Column('languages', sa.JSON(), nullable=False),
    sa.Column('expires', sa.String(length=10), nullable=False),
    sa.Column('evidence', sa.String(), nullable=False),
    sa.Column('evidence_sha256', sa.String(length=64), nullable=False),
    sa.Column('recorded_by', sa.String(), nullable=False),
    sa.Column('recorded', sa.DateTime(timezone=True), nullable=False),
    sa.Column('revoked_by', sa.String(), nullable=False),
    sa.Column('revoked', sa.DateTime(timezone=True), nullable=True),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_consents'))
    )
    op.create_table('consent_uses',
    sa.Column('recipe', sa.String(length=64), nullable=False),
    sa.Column('consent', sa.Integer(), nullable=False),
    sa.Column('run_id', sa.String(length=36), nullable=False),
    sa.Column('noted', sa.DateTime(timezone=True), nullable=False),
    sa.ForeignKeyConstraint(['consent'], ['consents.id'], name=op.f('fk_consent_uses_consent_consents')),
    sa.ForeignKeyConstraint(['run_id'], ['runs.id'], name=op.f('fk_consent_uses_run_id_runs')),
    sa.PrimaryKeyConstraint('recipe', 'consent', name=op.f('pk_consent_uses'))
    )


def downgrade() -> None:
    for table in ('consent_uses', 'consents', 'cast_voices', 'cast_speakers', 'cast_members'):
        op.drop_table(table)
