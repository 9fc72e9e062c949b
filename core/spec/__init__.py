"""Frozen specs: what a user asks for, one noun a file."""

from core.spec.data import SOURCES, DatasetSpec, SourceFacts
from core.spec.job import JobSpec, PublishSpec
from core.spec.network import (
    FAMILIES,
    ConvNetSpec,
    InceptionSpec,
    InitializationSpec,
    MLPSpec,
    NetworkSpec,
    RecurrentSpec,
    ResNetSpec,
    SequentialSpec,
    VGGSpec,
)
from core.spec.normalization import BatchNormSpec, NormalizationSpec, PopulationSpec
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
    "InceptionSpec",
    "InitializationSpec",
    "JobSpec",
    "MLPSpec",
    "NetworkSpec",
    "NormalizationSpec",
    "OptimizerSpec",
    "PopulationSpec",
    "PublishSpec",
    "RecurrentSpec",
    "ResNetSpec",
    "ResourcesSpec",
    "ScheduleSpec",
    "SequentialSpec",
    "SourceFacts",
    "TrainingSpec",
    "VGGSpec",
]
