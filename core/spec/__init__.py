"""Frozen specs: what a user asks for, one noun a file."""

from core.spec.data import SOURCES, DatasetSpec, SourceFacts
from core.spec.job import JobSpec, PublishSpec
from core.spec.network import FAMILIES, ConvNetSpec, InitializationSpec, MLPSpec, NetworkSpec
from core.spec.normalization import BatchNormSpec, PopulationSpec
from core.spec.optimization import (
    EarlyStoppingSpec,
    OptimizerSpec,
    ResourcesSpec,
    ScheduleSpec,
    TrainingSpec,
)

__all__ = [
    "FAMILIES",
    "SOURCES",
    "BatchNormSpec",
    "ConvNetSpec",
    "DatasetSpec",
    "EarlyStoppingSpec",
    "InitializationSpec",
    "JobSpec",
    "MLPSpec",
    "NetworkSpec",
    "OptimizerSpec",
    "PopulationSpec",
    "PublishSpec",
    "ResourcesSpec",
    "ScheduleSpec",
    "SourceFacts",
    "TrainingSpec",
]
