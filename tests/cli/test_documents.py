import pytest

from cli.documents import override, pairs, read_json
from core.errors import InputInvalid


def test_fields_are_set_by_path_as_json_or_as_text():
    document = {"dataset": {"source": "digits"}}

    result = override(
        document,
        ["training.steps=500", "network.hidden=[10, 20]", "batch_norm=false", "dataset.source=iris", "name=a=b"],
    )

    assert result == {
        "dataset": {"source": "iris"},
        "training": {"steps": 500},
        "network": {"hidden": [10, 20]},
        "batch_norm": False,
        "name": "a=b",
    }
    assert document == {"dataset": {"source": "digits"}}


def test_a_path_through_a_value_that_is_no_object_is_refused_by_name():
    with pytest.raises(InputInvalid, match=r"batch_norm\.eps.*batch_norm is True"):
        override({"batch_norm": True}, ["batch_norm.eps=0.1"])


@pytest.mark.parametrize("text", ["training.steps", "=5"])
def test_what_is_no_pair_is_refused_by_name(text):
    with pytest.raises(InputInvalid, match="name=value"):
        pairs([text])


def test_a_file_that_is_missing_or_no_json_is_named(tmp_path):
    broken = tmp_path / "broken.json"
    broken.write_text("{")

    with pytest.raises(InputInvalid, match=r"absent\.json"):
        read_json(str(tmp_path / "absent.json"))
    with pytest.raises(InputInvalid, match=r"broken\.json is not JSON"):
        read_json(str(broken))
