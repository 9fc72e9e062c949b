"""History of aliases, canaries and shadows"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

SPLIT = (
    ("canary_version", sa.Integer()),
    ("canary_weight", sa.Float()),
    ("shadow_version", sa.Integer()),
)


def upgrade() -> None:
    with op.batch_alter_table("aliases") as aliases:
        for name, kind in SPLIT:
            aliases.add_column(sa.Column(name, kind))
    op.create_table(
        "alias_moves",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("model_id", sa.String(length=40), nullable=False),
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("version", sa.Integer()),
        *(sa.Column(name, kind) for name, kind in SPLIT),
        sa.Column("reason", sa.String(length=16), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name=op.f("fk_alias_moves_model_id_models")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alias_moves")),
    )
    op.create_index("ix_alias_moves_of_alias", "alias_moves", ["model_id", "name", "id"])
    op.execute(
        "INSERT INTO alias_moves (model_id, name, version, reason, created_at)"
        " SELECT model_id, name, version, 'moved', updated_at FROM aliases"
    )


def downgrade() -> None:
    op.drop_table("alias_moves")
    with op.batch_alter_table("aliases") as aliases:
        for name, _ in SPLIT:
            aliases.drop_column(name)
