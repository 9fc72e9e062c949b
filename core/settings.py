"""Settings: the only reader of the environment. Every variable begins with EVENKEEL_."""

from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

import platformdirs
from pydantic import Field, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from core.errors import SettingsInvalid

Seconds = Annotated[float, Field(gt=0.0)]
SecretText = Annotated[str | None, Field(validate_default=True)]
"""May come from a file: for each such field `x` there is a field `x_file`, declared before it."""


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix="EVENKEEL_", frozen=True, extra="ignore", use_attribute_docstrings=True
    )

    home: Path = Path(platformdirs.user_data_dir("evenkeel"))
    """Folder of the embedded database, artifacts, data and the admin key."""
    database_url_file: Path | None = None
    """A file that holds the database URL, as containers are given secrets; the URL itself wins over it."""
    database_url: SecretText = None
    """SQLAlchemy URL; default: SQLite in the home."""
    broker_url_file: Path | None = None
    """A file that holds the broker URL; the URL itself wins over it."""
    broker_url: SecretText = None
    """Redis, Valkey or RabbitMQ for bells; default: none, one machine needs none."""
    database_pool_size: Annotated[int, Field(ge=1)] = 5
    """Connections that each process keeps open."""
    database_pool_overflow: Annotated[int, Field(ge=0)] = 20
    """Connections beyond these that it may open under load."""
    database_pool_timeout_seconds: Seconds = 5.0
    """How long a request waits for one of them, and for the database to take a new one, before 503."""
    artifact_url: str | None = None
    """Where checkpoints and models live: a folder that every node reaches, or s3://bucket/prefix; default: a
    folder in the home."""
    artifact_cache_bytes: Annotated[int, Field(ge=0)] = 4 * 1024**3
    """Bound on the copies in the home of what lies on S3; 0: none are kept."""
    data_dir: Path | None = None
    """Folder with one folder of IDX files per source; default: `data` in the home."""
    data_mirror_url: str | None = None
    """Asked for `<url>/<source>/<file>` in place of the source's publisher, for what is not in `data_dir`;
    files are checked against known SHA-256 sums either way."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8321
    url: str | None = None
    """Where clients find the service; default: the one that runs on this home."""
    api_key_file: Path | None = None
    """A file that holds the client's key; the key itself wins over it."""
    api_key: SecretText = None
    """The client's key; default: the admin key of this home."""
    admin_key_file: Path | None = None
    """Where the first admin key is kept, and taken from when it is there; default: `admin-key` in the home."""

    slots: Annotated[int, Field(ge=1)] | None = None
    """Jobs that run at once on this node; default: cores // threads a slot."""
    threads_per_slot: Annotated[int, Field(ge=1)] = 1
    lease_seconds: Seconds = 60.0
    heartbeat_seconds: Seconds = 5.0
    """A lease is renewed at least this often."""
    reaper_seconds: Seconds = 10.0
    tick_seconds: Seconds = 1.0
    """At most one transaction per job in this time; a longer one than the heartbeat is cut to it."""
    poll_seconds: Seconds | None = None
    """How often a worker with a free slot looks for queued jobs that no bell told of. Default: 0.5 on one
    machine, 5 with a broker."""
    search_seconds: Seconds = 1.0
    """How often the interface looks for searches whose round is over."""
    node_seconds: Seconds = 10.0
    """How often a worker writes that it is there."""
    storage_patience_seconds: Seconds = 600.0
    """How long a running job goes on trying to write to an artifact store that is away."""
    stall_seconds: Seconds = 600.0
    """A trainer that reports nothing for so long is stopped; three times without progress fail the job."""
    drain_seconds: Seconds = 8.0
    """How long trainers have to write a checkpoint after SIGTERM."""
    attempts_without_progress: Annotated[int, Field(ge=1)] = 3

    gap_accuracy: Annotated[float, Field(gt=0.0, le=1.0)] = 0.02
    """A job warns when its test accuracy (of a regression: r2) under batch statistics, running average and
    population statistics differs by more."""
    gap_loss: Annotated[float, Field(gt=0.0)] = 0.1
    """Likewise for its test loss."""
    dead_variance: Annotated[float, Field(ge=0.0)] = 10.0
    """A channel counts as dead below so many times eps of variance."""
    dead_output: Annotated[float, Field(ge=0.0)] = 0.001
    """A channel counts as dead below this deviation of what its layer makes of it."""
    exploding_gain: Annotated[float, Field(gt=0.0)] = 100.0
    """A channel counts as exploding above this gain, gamma / sqrt(variance + eps)."""
    exploding_mean: Annotated[float, Field(gt=0.0)] = 100.0
    """A channel counts as exploding when its mean is more than so many of its deviations away from 0."""

    maximum_parameters: Annotated[int, Field(ge=1)] = 200_000_000
    maximum_steps: Annotated[int, Field(ge=1)] = 10_000_000
    maximum_members: Annotated[int, Field(ge=1)] = 400
    """Jobs of one comparison."""
    maximum_body_bytes: Annotated[int, Field(ge=1)] = 32 * 1024 * 1024
    maximum_dataset_bytes: Annotated[int, Field(ge=1)] = 1024**3
    """Of a data set that is uploaded, and of what it holds unpacked."""
    maximum_predict_rows: Annotated[int, Field(ge=1)] = 100_000
    model_memory_bytes: Annotated[int, Field(ge=1)] = 1024**3
    """Bound on the bytes of model files that the inference engine keeps loaded."""
    api_workers: Annotated[int, Field(ge=1, le=256)] = 1
    """Processes of the API on its port."""
    role: Literal["all", "inference"] = "all"
    """What the API answers: everything, or models and predictions only."""
    predict_queue_rows: Annotated[int, Field(ge=1)] = 4096
    """Rows that may wait for one model in one process; who comes later is told so at once."""
    predict_seconds: Seconds = 30.0
    """How long a prediction may take, waiting included, where its request does not say."""
    predict_threads: Annotated[int, Field(ge=1)] | None = None
    """Batches that one process runs at the same time; default: the cores that it may use, at most 4."""
    drift_share: Annotated[float, Field(ge=0.0, le=1.0)] = 0.1
    """Of the batches, how many are compared with the training data; 0: none."""
    drift_layers_share: Annotated[float, Field(ge=0.0, le=1.0)] = 0.01
    """Of the batches, how many run a second time beside the requests, for the drift of the layers; 0: none."""
    drift_threshold: Annotated[float, Field(gt=0.0)] = 0.5
    """An input, or a channel of a layer, has drifted when its mean is further off than so many deviations of the
    training data."""
    log_level: str = "info"

    @field_validator("database_url_file", "broker_url_file", "api_key_file")
    @classmethod
    def _holds_a_secret(cls, file: Path | None) -> Path | None:
        if file is not None:
            _secret_in(file)
        return file

    @field_validator("database_url", "broker_url", "api_key")
    @classmethod
    def _may_come_from_its_file(cls, value: str | None, info: ValidationInfo) -> str | None:
        file = info.data.get(f"{info.field_name}_file")
        return _secret_in(file) if value is None and file is not None else value

    @cached_property
    def resolved_database_url(self) -> str:
        return self.database_url or f"sqlite:///{self.home.absolute() / 'evenkeel.sqlite'}"

    @cached_property
    def resolved_poll_seconds(self) -> float:
        return self.poll_seconds or (0.5 if self.broker_url is None else 5.0)

    @cached_property
    def resolved_artifact_url(self) -> str:
        return self.artifact_url or str(self.home.absolute() / "artifacts")

    @property
    def artifact_cache_dir(self) -> Path:
        return self.home.absolute() / "cache"

    @cached_property
    def resolved_data_dir(self) -> Path:
        return self.data_dir or self.home.absolute() / "data"

    @property
    def service_file(self) -> Path:
        """Written by `evenkeel up` while it runs: where clients on this machine find the service."""
        return self.home.absolute() / "service.json"

    @property
    def resolved_admin_key_file(self) -> Path:
        return self.admin_key_file or self.home.absolute() / "admin-key"


def _secret_in(file: Path) -> str:
    """Raises ValueError, which names the file, when it can not be read or is empty."""
    try:
        text = file.read_text().strip()
    except OSError as error:
        raise ValueError(f"{file} can not be read ({error.strerror}): give a file that this process may read") from None
    if not text:
        raise ValueError(f"{file} is empty: write the value into it")
    return text


def load_settings(**overrides: object) -> Settings:
    """Settings from the environment; `overrides` (command-line flags) win, None means not given.

    Raises SettingsInvalid with the variable's name, its value and what is allowed.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        return Settings(**given)  # type: ignore[arg-type]
    except ValidationError as error:
        lines = (
            f"EVENKEEL_{'_'.join(map(str, part['loc'])).upper()}={part['input']!r}: {part['msg']}"
            for part in error.errors()
        )
        raise SettingsInvalid("; ".join(lines)) from None
