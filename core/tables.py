"""Tables. Times are microseconds since 1970 UTC by the database's clock (`core.clock`), so that one
integer comparison means the same on SQLite and Postgres."""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from core.states import TRANSITIONS

SCHEMA_HEAD = "0006"
"""The migration that these tables agree with; readiness refuses any other. A test compares it with Alembic's head."""

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

Id = String(40)
Json = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
Key = BigInteger().with_variant(Integer, "sqlite")

tenants = Table(
    "tenants",
    metadata,
    Column("id", Id, primary_key=True),
    Column("name", String(63), nullable=False, unique=True),
    Column("created_at", BigInteger, nullable=False),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Id, primary_key=True),
    Column("tenant_id", Id, ForeignKey("tenants.id"), nullable=False, index=True),
    Column("name", String(63), nullable=False),
    Column("secret_sha256", String(64), nullable=False),
    Column("scopes", Json, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger),
    Column("revoked_at", BigInteger),
    Column("last_used_at", BigInteger),
)

_states = ", ".join(f"'{state}'" for state in TRANSITIONS)

jobs = Table(
    "jobs",
    metadata,
    Column("id", Id, primary_key=True),
    Column("tenant_id", Id, ForeignKey("tenants.id"), nullable=False),
    Column("idempotency_key", String(255)),
    Column("spec", Json, nullable=False),
    Column("spec_sha256", String(64), nullable=False),
    Column("name", String(63), nullable=False),
    Column("family", String(32), nullable=False),
    Column("metadata", Json, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("needs_cuda", Boolean, nullable=False),
    Column("flops_per_step", BigInteger, nullable=False),
    Column("retry_of", Id, ForeignKey("jobs.id")),
    Column("state", String(16), nullable=False),
    Column("phase", String(32)),
    Column("attempt", Integer, nullable=False, server_default=text("0")),
    Column("attempts_without_progress", Integer, nullable=False, server_default=text("0")),
    Column("fence", BigInteger, nullable=False, server_default=text("0")),
    Column("tick", BigInteger, nullable=False, server_default=text("0")),
    Column("lease_owner", String(120)),
    Column("lease_expires_at", BigInteger),
    Column("heartbeat_at", BigInteger),
    Column("running_us", BigInteger, nullable=False, server_default=text("0")),
    Column("fingerprint", Text),
    Column("step", BigInteger, nullable=False, server_default=text("0")),
    Column("steps", BigInteger, nullable=False),
    Column("next_seq", BigInteger, nullable=False, server_default=text("1")),
    Column("cancel_requested_at", BigInteger),
    Column("cancel_forced", Boolean, nullable=False, server_default=text("false")),
    Column("pause_requested_at", BigInteger),
    Column("error", Json),
    Column("result", Json),
    Column("created_at", BigInteger, nullable=False),
    Column("started_at", BigInteger),
    Column("finished_at", BigInteger),
    UniqueConstraint("tenant_id", "idempotency_key"),
    CheckConstraint(f"state IN ({_states})", name="state"),
    CheckConstraint("(state = 'running') = (lease_expires_at IS NOT NULL)", name="lease"),
    Index("ix_jobs_claim", "state", "priority", "created_at"),
    Index("ix_jobs_lease", "state", "lease_expires_at"),
    Index("ix_jobs_list", "tenant_id", "created_at", "id"),
)

events = Table(
    "events",
    metadata,
    Column("job_id", Id, ForeignKey("jobs.id"), primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("type", String(32), nullable=False),
    Column("level", String(8), nullable=False),
    Column("message", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("data", Json, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

metric_series = Table(
    "metric_series",
    metadata,
    Column("id", Key, primary_key=True),
    Column("job_id", Id, ForeignKey("jobs.id"), nullable=False),
    Column("name", String(120), nullable=False),
    Column("last_step", BigInteger),
    Column("last_value", Float),
    Column("last_nonfinite", SmallInteger, nullable=False, server_default=text("0")),
    UniqueConstraint("job_id", "name"),
)

metric_points = Table(
    "metric_points",
    metadata,
    Column("series_id", BigInteger, ForeignKey("metric_series.id"), primary_key=True, autoincrement=False),
    Column("step", BigInteger, primary_key=True, autoincrement=False),
    Column("value", Float),
    Column("nonfinite", SmallInteger, nullable=False),  # 0 finite, 1 NaN, 2 +infinity, 3 -infinity
    sqlite_with_rowid=False,
)

layer_reports = Table(
    "layer_reports",
    metadata,
    Column("job_id", Id, ForeignKey("jobs.id"), primary_key=True),
    Column("step", BigInteger, primary_key=True, autoincrement=False),
    Column("final", Boolean, nullable=False),  # after training, by the statistics that are published
    Column("layers", Json, nullable=False),
    Column("created_at", BigInteger, nullable=False),
)

checkpoints = Table(
    "checkpoints",
    metadata,
    Column("id", Id, primary_key=True),
    Column("job_id", Id, ForeignKey("jobs.id"), nullable=False),
    Column("step", BigInteger, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("name", String(255), nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("complete", Boolean, nullable=False),
    Column("monitor", String(64)),
    Column("score", Float),
    Column("best", Boolean, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    UniqueConstraint("job_id", "step"),
)

models = Table(
    "models",
    metadata,
    Column("id", Id, primary_key=True),
    Column("tenant_id", Id, ForeignKey("tenants.id"), nullable=False),
    Column("name", String(63), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    UniqueConstraint("tenant_id", "name"),
)

model_versions = Table(
    "model_versions",
    metadata,
    Column("model_id", Id, ForeignKey("models.id"), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("job_id", Id, ForeignKey("jobs.id"), nullable=False, unique=True),
    Column("card", Json, nullable=False),
    Column("artifacts", Json, nullable=False),
    Column("weights_sha256", String(64), nullable=False),
    Column("statistics_sha256", String(64)),
    Column("created_at", BigInteger, nullable=False),
)

aliases = Table(
    "aliases",
    metadata,
    Column("model_id", Id, primary_key=True),
    Column("name", String(63), primary_key=True),
    Column("version", Integer, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("canary_version", Integer),
    Column("canary_weight", Float),
    Column("shadow_version", Integer),
    ForeignKeyConstraint(["model_id", "version"], ["model_versions.model_id", "model_versions.version"]),
)

datasets = Table(
    "datasets",
    metadata,
    Column("id", Id, primary_key=True),
    Column("tenant_id", Id, ForeignKey("tenants.id"), nullable=False),
    Column("name", String(63), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    UniqueConstraint("tenant_id", "name"),
)

dataset_versions = Table(
    "dataset_versions",
    metadata,
    Column("dataset_id", Id, ForeignKey("datasets.id"), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("sha256", String(64), nullable=False),  # of what was uploaded
    Column("bytes", BigInteger, nullable=False),
    Column("options", Json, nullable=False),  # how it was to be read
    Column("facts", Json, nullable=False),  # task, kind, shape, rows: what admission must know
    Column("contents", Json, nullable=False),  # labels, columns, fields: what a reader wants to know
    Column("artifact", Json, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("deleted_at", BigInteger),  # its number is never given again
)

alias_moves = Table(
    "alias_moves",
    metadata,
    Column("id", Key, primary_key=True),
    Column("model_id", Id, ForeignKey("models.id"), nullable=False),
    Column("name", String(63), nullable=False),
    Column("version", Integer),  # null: the alias was deleted
    Column("canary_version", Integer),
    Column("canary_weight", Float),
    Column("shadow_version", Integer),
    Column("reason", String(16), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Index("ix_alias_moves_of_alias", "model_id", "name", "id"),
)

nodes = Table(
    "nodes",
    metadata,
    Column("id", Id, primary_key=True),
    Column("host", String(255), nullable=False),
    Column("slots", Integer, nullable=False),
    Column("gpus", Integer, nullable=False),
    Column("versions", Json, nullable=False),
    Column("started_at", BigInteger, nullable=False),
    Column("last_seen_at", BigInteger, nullable=False),
)
