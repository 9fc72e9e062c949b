"""What the documents show must be true."""

import json
import re
import tomllib
from itertools import chain
from pathlib import Path

import pytest

from api.comparisons import admit_comparison
from core.settings import Settings
from core.spec import JobSpec

ROOT = Path(__file__).parent.parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_the_job_spec_of_the_readme_is_one():
    (block,) = re.findall(r"```json\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)

    spec = JobSpec.model_validate(json.loads(block))

    assert spec.training.steps == 5000


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_spec_in_a_curl_example_is_one(document):
    bodies = [json.loads(body) for body in re.findall(r"-d '(\{[^']*\})'", document.read_text())]

    for body in bodies:
        if "network" in body:
            JobSpec.model_validate(body)
        elif "base" in body:
            admit_comparison(body, Settings())


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_somewhere(document):
    for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
        assert (document.parent / target).exists(), target


def test_every_setting_stands_in_the_table_with_its_default():
    table = (ROOT / "docs" / "operations.md").read_text()

    for name, field in Settings.model_fields.items():
        default = f"`{field.default}`" if isinstance(field.default, int | float) else ""
        assert re.search(rf"\| `EVENKEEL_{name.upper()}` \| {re.escape(default)}", table), name


def test_every_dependency_has_its_reason():
    reasons = (ROOT / "docs" / "decisions" / "dependencies.md").read_text()

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for line in chain(project["dependencies"], *project["optional-dependencies"].values()):
        name = re.match(r"[a-z0-9-]+", line)[0]
        if name != "evenkeel":
            assert re.search(rf"\b{name}\b", reasons), name


def test_every_constraint_is_one_exact_version():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]

    assert len(lines) > 50
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9a-z.]+", line) for line in lines)
