"""The commands against a real service: API, worker, trainer, database, on a home and a port of its own."""

import hashlib
import json
import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from cli.hosting import service
from cli.main import app
from core.errors import InputInvalid
from evenkeel import Client, NotFound, Unauthenticated

SMALL = [
    "--set",
    "dataset.source=iris",
    "--set",
    "network.family=mlp",
    "--set",
    "network.hidden=[8]",
    "--set",
    "training.steps=200",
]
ENDLESS = [*SMALL, "--set", "training.steps=10000000", "--set", "training.evaluate_every=10000000"]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("home")
    with service(folder):
        yield folder


@pytest.fixture
def evenkeel(home, monkeypatch):
    """Runs a command; the result has `stdout`, `stderr` and `exit_code`."""
    for name in ("EVENKEEL_URL", "EVENKEEL_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("EVENKEEL_HOME", str(home))

    def invoke(*arguments, stdin=None):
        return CliRunner().invoke(app, list(arguments), input=stdin, catch_exceptions=False)

    return invoke


@pytest.fixture(scope="module")
def trained(home):
    with Client(home=home) as client:
        job = client.wait(
            client.submit(
                {
                    "name": "flowers",
                    "metadata": {"team": "botany"},
                    "dataset": {"source": "iris"},
                    "network": {"family": "mlp", "hidden": [8]},
                    "training": {"steps": 200, "evaluate_every": 20},
                }
            ),
            timeout_seconds=60,
        )
    assert job.succeeded, job.error
    return job


def test_a_submission_can_be_watched_to_its_end(evenkeel):
    result = evenkeel("submit", *SMALL, "--watch")

    lines = result.stdout.splitlines()
    assert result.exit_code == 0
    assert lines[0].startswith("job_")
    assert "succeeded" in lines[-1]
    assert "step 200/200" in lines[-1]


def test_a_spec_comes_from_a_file_or_standard_input_and_is_overridden(evenkeel, tmp_path):
    spec = {"dataset": {"source": "iris"}, "network": {"family": "mlp"}, "training": {"steps": 5}}
    (tmp_path / "spec.json").write_text(json.dumps(spec))

    from_file = evenkeel("submit", str(tmp_path / "spec.json"), "--set", "name=mine", "--json")
    from_stdin = evenkeel("submit", "-", "--json", stdin=json.dumps(spec))

    assert json.loads(from_file.stdout)["name"] == "mine"
    assert json.loads(from_stdin.stdout)["spec"]["training"]["steps"] == 5


def test_a_check_submits_nothing(evenkeel, home):
    with Client(home=home) as client:
        before = len(client.jobs(limit=1000))
        result, table = evenkeel("submit", *SMALL, "--check", "--json"), evenkeel("submit", *SMALL, "--check")

        assert json.loads(result.stdout)["valid"] is True
        assert "hidden1.batch_norm" in table.stdout and "training takes about" in table.stdout
        assert len(client.jobs(limit=1000)) == before


def test_a_watched_submission_as_json_is_one_document_of_the_job_as_it_ended(evenkeel):
    result = evenkeel("submit", *SMALL, "--watch", "--json")

    assert result.exit_code == 0
    assert json.loads(result.stdout)["status"] == "succeeded"


def test_a_series_that_is_not_there_is_an_error_that_names_those_that_are(evenkeel, trained):
    with pytest.raises(InputInvalid, match=r"no points of train/los: its series are .*train/loss"):
        evenkeel("metrics", trained.id, "--name", "train/los")


def test_a_failed_job_makes_exit_code_1_and_a_cancelled_one_2(evenkeel):
    diverging = ["--set", 'optimizer={"kind": "sgd", "learning_rate": 1000000}', "--set", "batch_norm=false"]

    broken = evenkeel("submit", *SMALL, *diverging, "--watch")
    endless = json.loads(evenkeel("submit", *ENDLESS, "--json").stdout)["id"]
    cancelled = evenkeel("cancel", endless)
    watched = evenkeel("watch", endless)

    assert broken.exit_code == 1
    assert "non_finite_loss" in broken.stderr
    assert cancelled.exit_code == 0
    assert watched.exit_code == 2


def test_a_job_is_paused_resumed_and_force_cancelled(evenkeel, home, until):
    job_id = json.loads(evenkeel("submit", *ENDLESS, "--json").stdout)["id"]
    with Client(home=home) as client:
        until(lambda: client.job(job_id).progress.step > 0)
        evenkeel("pause", job_id)
        until(lambda: client.job(job_id).status == "paused")
        evenkeel("resume", job_id)
        until(lambda: client.job(job_id).status == "running")
        evenkeel("cancel", job_id, "--force")
        assert client.wait(job_id, timeout_seconds=30).status == "cancelled"


def test_lists_are_tables_for_people_and_json_for_programs(evenkeel, trained):
    table = evenkeel("jobs", "--metadata", "team=botany")
    listed = json.loads(evenkeel("jobs", "--metadata", "team=botany", "--status", "succeeded", "--json").stdout)

    assert trained.id in table.stdout
    assert f"{100 * trained.result['accuracy']:.1f} %" in table.stdout
    assert [job["id"] for job in listed] == [trained.id]


def test_a_job_shows_its_result_and_its_metrics(evenkeel, trained):
    shown = evenkeel("job", trained.id)
    metrics = evenkeel("metrics", trained.id)
    series = json.loads(evenkeel("metrics", trained.id, "--name", "train/loss", "--json").stdout)

    assert trained.result["weights_sha256"] in shown.stdout
    assert "result gap population" in shown.stdout
    assert "{" not in shown.stdout
    assert "test/accuracy" in metrics.stdout
    assert list(series) == ["train/loss"]
    assert series["train/loss"]["steps"] == list(range(1, 201))


def test_what_a_job_observes_is_listed_with_its_metrics_and_counted_where_the_job_is_shown(evenkeel):
    made = json.loads(evenkeel("submit", *SMALL, "--set", "observe.every=50", "--watch", "--json").stdout)

    shown, metrics = evenkeel("job", made["id"]).stdout, evenkeel("metrics", made["id"]).stdout
    series = json.loads(evenkeel("metrics", made["id"], "--name", "observe/hidden1.activation/p50", "--json").stdout)

    assert series["observe/hidden1.activation/p50"]["steps"] == [1, 50, 100, 150, 200]
    assert metrics.count("observe/") == 17
    assert "17 series, shown by: evenkeel metrics" in shown and "observe/" not in shown


def test_the_families_are_listed_with_their_sizes_and_one_is_shown_with_its_fields(evenkeel):
    listed, shown = evenkeel("architectures"), evenkeel("architectures", "resnet")

    assert (listed.exit_code, shown.exit_code) == (0, 0)
    assert "272,186" in listed.stdout
    assert "identity | projection" in shown.stdout
    assert "object with kind, scale" in shown.stdout
    assert json.loads(evenkeel("architectures", "vgg", "--json").stdout)[0]["family"] == "vgg"


def test_a_retry_of_a_finished_job_is_a_new_job(evenkeel, trained):
    result = evenkeel("retry", trained.id, "--watch")

    assert result.exit_code == 0
    assert trained.id not in result.stdout


def test_a_model_answers_rows_from_a_file(evenkeel, trained, tmp_path):
    (tmp_path / "rows.json").write_text("[[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]]")

    table = evenkeel("predict", "flowers", "--rows", str(tmp_path / "rows.json"))
    asked = evenkeel("predict", "flowers", "--rows", "-", "--json", stdin='{"rows": [[5.1, 3.5, 1.4, 0.2]]}')
    answer = json.loads(asked.stdout)

    assert "setosa" in table.stdout
    assert "virginica" in table.stdout
    assert answer["predictions"][0]["label"] == "setosa"
    assert answer["statistics_sha256"] == trained.result["statistics_sha256"]


def test_models_and_their_versions_are_listed(evenkeel, trained):
    models = evenkeel("models")
    versions = evenkeel("models", "flowers")

    assert "flowers" in models.stdout
    assert trained.id in versions.stdout
    assert "latest" in versions.stdout


def test_a_key_opens_what_its_scopes_say_until_it_is_revoked(evenkeel, home):
    text = evenkeel("keys", "create", "reader", "--scope", "jobs:read").stdout.strip()
    listed = json.loads(evenkeel("keys", "list", "--json").stdout)
    key_id = next(key["id"] for key in listed if key["name"] == "reader")

    with Client(home=home, api_key=text) as client:
        assert isinstance(client.jobs(), list)
    revoked = evenkeel("keys", "revoke", key_id)

    assert revoked.exit_code == 0
    assert text not in json.dumps(listed)


def run(home, *arguments, **environment):
    return subprocess.run(
        [sys.executable, "-P", "-c", "from cli.main import main; main()", *arguments],
        env=os.environ | {"EVENKEEL_HOME": str(home)} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        (("submit", *SMALL, "--set", "training.steps=0"), "/training/steps"),
        (("job", "job_00000000000000000000000000"), "job_0000"),
        (("submit",), "--set"),
        (("submit", "/absent.json"), "/absent.json"),
        (("keys", "create", "x", "--scope", "jobs:all"), "jobs:read"),
    ],
)
def test_whatever_goes_wrong_is_one_line_that_names_it(home, arguments, remedy):
    ended = run(home, *arguments)

    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1
    assert remedy in ended.stderr
    assert ended.stdout == ""


def test_a_service_that_is_not_there_is_one_line_with_the_remedy(tmp_path):
    ended = run(tmp_path, "jobs")

    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1
    assert "evenkeel up" in ended.stderr


def test_a_key_that_was_never_issued_is_refused(home):
    with Client(home=home, api_key="ek_00000000000000000000000000_00") as client, pytest.raises(Unauthenticated):
        client.jobs()


def test_the_stream_gives_every_event_once_though_the_reader_comes_and_goes(home, trained):
    with Client(home=home) as client:
        seen = []
        while not seen or seen[-1].type != "end":
            for event in client.stream(trained, after=seen[-1].seq if seen else 0):
                seen.append(event)
                if len(seen) % 3 == 0:
                    break

        assert [event.seq for event in seen] == list(range(1, len(seen) + 1))
        assert [event.raw for event in client.events(trained)] == [event.raw for event in seen]
        assert list(client.stream(trained, after=seen[-1].seq)) == []


def test_downloads_and_population_statistics_are_there(home, trained):
    with Client(home=home) as client:
        card = json.loads(client.download("flowers", "card"))

        assert client.download("flowers", "onnx")[:1] == b"\x08"
        assert card["input"]["shape"] == [4]
        assert client.population("flowers")
        assert client.checkpoints(trained)[0].step == 200
        with pytest.raises(NotFound):
            client.model("no-such-model")


def test_the_command_line_starts_without_the_libraries_of_a_server():
    heavy = ("torch", "fastapi", "sqlalchemy", "onnxruntime", "numpy")
    code = f"import cli.main, sys; print([name for name in {heavy} if name in sys.modules])"

    ended = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)

    assert ended.stdout.strip() == "[]"


def test_the_layers_of_a_job_are_shown(evenkeel, trained):
    table, listed = evenkeel("layers", trained.id), json.loads(evenkeel("layers", trained.id, "--json").stdout)
    earlier = json.loads(evenkeel("layers", trained.id, "--step", "40", "--json").stdout)

    assert "hidden1.batch_norm" in table.stdout
    assert "step 200, by the population statistics (pooled)" in table.stdout
    assert [layer["name"] for layer in listed["data"]] == ["hidden1.batch_norm"]
    assert earlier["step"] == 40 and earlier["data"][0]["updates"] == 40


def test_a_job_without_batch_norm_says_why_it_has_no_layers_to_show(evenkeel):
    job_id = json.loads(evenkeel("submit", *SMALL, "--set", "batch_norm=false", "--json").stdout)["id"]

    assert "no layer of this network has statistics" in evenkeel("layers", job_id).stdout


def test_the_files_of_a_model_are_saved(evenkeel, trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    graph = evenkeel("download", "flowers")
    card = evenkeel("download", "flowers", "--format", "card", "-o", str(tmp_path / "card.json"))

    assert (graph.exit_code, card.exit_code) == (0, 0)
    facts = json.loads((tmp_path / "card.json").read_text())
    digest = hashlib.sha256((tmp_path / "flowers.onnx").read_bytes()).hexdigest()
    assert facts["artifacts"]["onnx"]["sha256"] == digest
    assert digest in graph.stdout


def test_the_statistics_that_a_model_answers_by_are_shown(evenkeel, trained):
    table, plain = evenkeel("population", "flowers"), evenkeel("population", "flowers", "--json")

    assert "hidden1.batch_norm" in table.stdout
    assert f"pooled, {trained.result['population']['samples']} samples" in table.stdout
    assert json.loads(plain.stdout)["statistics_sha256"] == trained.result["statistics_sha256"]


def test_a_model_is_verified(evenkeel, trained):
    table, checked = evenkeel("verify", "flowers"), json.loads(evenkeel("verify", "flowers", "--json").stdout)

    assert table.exit_code == 0
    assert "parity" in table.stdout and "passed" in table.stdout and "FAILED" not in table.stdout
    assert checked["passed"] and checked["parity"]["rows"] == 30


def test_a_model_is_recalibrated_and_shows_what_changed(evenkeel, trained, home):
    data = ["--set", "dataset.source=iris", "--set", "dataset.split_seed=4"]

    result = evenkeel("recalibrate", "flowers", *data, "--watch")

    lines = result.stdout.splitlines()
    assert result.exit_code == 0
    assert any("before" in line and "after" in line for line in lines)
    assert any(line.startswith("accuracy") for line in lines)
    with Client(home=home) as client:
        newest = client.versions("flowers")[0]
        assert newest.recalibrated_from["version"] == client.model("flowers").aliases["latest"]
        assert newest.weights_sha256 == trained.result["weights_sha256"]


def test_models_are_averaged_and_the_scores_of_each_are_shown(evenkeel, trained, home):
    other = evenkeel("submit", *SMALL, "--set", "name=others", "--set", "training.seed=4", "--watch")
    assert other.exit_code == 0

    result = evenkeel("ensemble", "both", trained.id, "others:1", "--watch")

    lines = result.stdout.splitlines()
    assert result.exit_code == 0
    assert any("test score of" in line and "accuracy" in line for line in lines)
    assert any(line.startswith("others version 1") for line in lines)
    assert any(line.startswith("together") for line in lines)
    with Client(home=home) as client:
        (version,) = client.versions("both")
        assert [member["model"] for member in version.ensemble["members"]] == ["flowers", "others"]
        assert version.aliases == ("latest",)
    again = evenkeel("ensemble", "both", "flowers", "others@latest", "--no-move", "--json", "--watch")
    assert json.loads(again.stdout)["result"]["version"] == 2
    with Client(home=home) as client:
        assert client.model("both").aliases == {"latest": 1}


def test_a_member_that_names_no_version_is_refused_with_the_ways_to_name_one(evenkeel):
    with pytest.raises(InputInvalid, match="digits:new names no version: write digits:3, digits@alias or digits"):
        evenkeel("ensemble", "both", "digits:1", "digits:new")


def test_a_recalibration_without_data_is_refused(evenkeel):
    with pytest.raises(InputInvalid, match="no data set: give a file, or fields"):
        evenkeel("recalibrate", "flowers")


def test_data_of_ones_own_is_uploaded_shown_trained_on_and_deleted(evenkeel, tmp_path):
    rows = "".join(f"{row},{('red', 'blue')[row % 2]},{('no', 'yes')[row % 2]}\n" for row in range(100))
    file = tmp_path / "shop.csv"
    file.write_text(f"price,colour,bought\n{rows}")
    mine = ["dataset.source=uploaded", "dataset.name=shop", "network.family=mlp", "network.hidden=[8]"]
    options = [part for field in [*mine, "training.steps=50"] for part in ("--set", field)]

    uploaded = evenkeel("data", "upload", str(file), "--name", "shop")
    job = json.loads(evenkeel("submit", *options, "--json").stdout)
    listed, shown = evenkeel("data", "list"), evenkeel("data", "show", "shop")

    assert uploaded.stdout == "shop version 1: 100 rows, table of 3, 2 classes (no, yes)\n"
    assert "shop" in listed.stdout and "table of 3" in listed.stdout
    assert "price, colour=blue, colour=red" in shown.stdout
    assert (job["name"], job["spec"]["dataset"]["version"]) == ("shop-mlp", 1)
    assert evenkeel("watch", job["id"]).exit_code == 0
    asked = evenkeel("predict", "shop-mlp", "--rows", "-", stdin='{"rows": [[3, "blue"]]}')
    assert "yes" in asked.stdout
    assert json.loads(evenkeel("data", "list", "--json").stdout)[0]["versions"] == [1]
    assert evenkeel("data", "delete", "shop").stdout == "shop is deleted\n"
    assert json.loads(evenkeel("data", "list", "--json").stdout) == []


def test_an_upload_of_an_unknown_task_is_refused(evenkeel, tmp_path):
    with pytest.raises(InputInvalid, match="choose from classification, regression"):
        evenkeel("data", "upload", str(tmp_path / "a.csv"), "--name", "a", "--task", "guessing")
