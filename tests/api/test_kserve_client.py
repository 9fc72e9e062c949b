"""KServe's client, which can not be installed beside us: its pins of protobuf and psutil exclude ours."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from core.artifacts import ArtifactStore
from tests.api.bench import Tenant, classifier, publish
from tests.api.live import Live

PYTHON = os.environ.get("EVENKEEL_TEST_KSERVE_PYTHON")
SCRIPT = Path(__file__).with_name("kserve_client.py")


@pytest.mark.skipif(
    PYTHON is None, reason="no KServe: pip install kserve elsewhere, EVENKEEL_TEST_KSERVE_PYTHON names its python"
)
def test_kserves_client_works_as_it_is(live: Live, tenant: Tenant, store: ArtifactStore) -> None:
    publish(tenant, store, "flowers", *classifier(), number=1)

    done = subprocess.run(
        [str(PYTHON), SCRIPT, live.url, tenant.key, "flowers", "4"], capture_output=True, text=True, timeout=120
    )

    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [found[name] for name in ("live", "ready", "model_ready")] == [True, True, True]
    exact = np.array(found["FP32 json"]["probabilities"])
    for name in ("FP32 json", "FP32 binary", "FP16 binary"):
        assert (found[name]["id"], found[name]["version"]) == ("7", "1")
        np.testing.assert_allclose(found[name]["probabilities"], exact, atol=1e-2 if "FP16" in name else 1e-7)
    np.testing.assert_allclose(found["v1"], exact, atol=1e-7)
    assert "there is no model none" in found["error"]
