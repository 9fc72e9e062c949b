"""Python client of the evenkeel service: `from evenkeel import Client`."""

from core.spec import JobSpec
from evenkeel.client import Client
from evenkeel.datasets import Dataset, DatasetVersion
from evenkeel.errors import (
    Conflict,
    EvenkeelClientError,
    FieldError,
    Invalid,
    NotFound,
    NotReachable,
    PermissionDenied,
    ServerFailed,
    Unauthenticated,
    WaitTimedOut,
)
from evenkeel.reports import Layer, LayerReports, Verification
from evenkeel.results import (
    Checkpoint,
    Event,
    Job,
    Key,
    Model,
    ModelVersion,
    Prediction,
    Predictions,
    Progress,
    Series,
    Validation,
)

__all__ = [
    "Checkpoint",
    "Client",
    "Conflict",
    "Dataset",
    "DatasetVersion",
    "EvenkeelClientError",
    "Event",
    "FieldError",
    "Invalid",
    "Job",
    "JobSpec",
    "Key",
    "Layer",
    "LayerReports",
    "Model",
    "ModelVersion",
    "NotFound",
    "NotReachable",
    "PermissionDenied",
    "Prediction",
    "Predictions",
    "Progress",
    "Series",
    "ServerFailed",
    "Unauthenticated",
    "Validation",
    "Verification",
    "WaitTimedOut",
]
