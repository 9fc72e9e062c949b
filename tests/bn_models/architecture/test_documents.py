"""The examples of the manual on networks are specs that are admitted."""

import json
import re
from pathlib import Path

import pytest

from bn_models.architecture import admit
from bn_models.architecture.blocks import OPTIONS
from core.spec import FAMILIES, JobSpec

MANUAL = (Path(__file__).parents[3] / "docs" / "networks.md").read_text()
EXAMPLES = re.findall(r"```json\n(.*?)```", MANUAL, re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_every_example_is_admitted_without_a_warning(example):
    spec = JobSpec.model_validate(json.loads(example))

    assert admit(spec, maximum_parameters=10**8, maximum_steps=10**6).warnings == ()


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_its_row(family):
    assert f"\n| `{family}` |" in MANUAL


@pytest.mark.parametrize("kind", OPTIONS)
def test_every_option_of_every_kind_is_explained(kind):
    for name in OPTIONS[kind].model_fields:
        assert f"`{name}`" in MANUAL
