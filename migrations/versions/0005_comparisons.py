"""Comparisons, which jobs are members of one, and which go on from a checkpoint of another"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

MEMBER_COLUMNS = ("comparison_id", "variant", "seed")


def upgrade() -> None:
    json = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
    op.create_table(
        "comparisons",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("tenant_id", sa.String(length=40), nullable=False),
        sa.Column("idempotency_key", sa.String(length=255), nullable=True),
        sa.Column("spec", json, nullable=False),
        sa.Column("spec_sha256", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("metadata", json, nullable=False),
        sa.Column("plan", json, nullable=False),
        sa.Column("maximum_running", sa.Integer(), nullable=True),
        sa.Column("searching", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("cancel_requested_at", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_comparisons_tenant_id_tenants")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_comparisons")),
        sa.UniqueConstraint("tenant_id", "idempotency_key", name=op.f("uq_comparisons_tenant_id_idempotency_key")),
    )
    op.create_index("ix_comparisons_list", "comparisons", ["tenant_id", "created_at", "id"])
    op.create_index("ix_comparisons_searching", "comparisons", ["searching"])
    op.add_column("jobs", sa.Column("comparison_id", sa.String(length=40), nullable=True))
    op.add_column("jobs", sa.Column("variant", sa.String(length=80), nullable=True))
    op.add_column("jobs", sa.Column("seed", sa.BigInteger(), nullable=True))
    op.add_column("jobs", sa.Column("forked_from", sa.String(length=40), nullable=True))
    op.create_index("ix_jobs_comparison", "jobs", ["comparison_id", "state"])
    op.create_index("ix_jobs_forked_from", "jobs", ["forked_from"])


def downgrade() -> None:
    op.drop_index("ix_jobs_forked_from", "jobs")
    op.drop_index("ix_jobs_comparison", "jobs")
    for name in (*MEMBER_COLUMNS, "forked_from"):
        op.drop_column("jobs", name)
    op.drop_index("ix_comparisons_searching", "comparisons")
    op.drop_index("ix_comparisons_list", "comparisons")
    op.drop_table("comparisons")
