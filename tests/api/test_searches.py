"""Searches over HTTP, run by real trainers: drawn variants, rounds that follow from results, members that go on."""

from collections.abc import Callable
from typing import Any

import pytest

from api.searches import advance
from core import tables
from core.queries import checkpoints, leases
from core.settings import Settings
from core.spec.search import TPESearch, drawn
from tests.api.service import Service

BASE: dict[str, Any] = {
    "dataset": {"source": "iris"},
    "network": {"family": "mlp", "hidden": [8]},
    "training": {"steps": 36, "batch_size": 30, "evaluate_every": 4},
}
RANGES: dict[str, Any] = {
    "optimizer.learning_rate": {"low": 0.001, "high": 10.0, "log": True},
    "network.hidden": {"choices": [[4], [8], [16, 8]]},
    "training.batch_size": {"low": 8, "high": 40, "integer": True},
}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """The service's own look comes too late to get into a test's way."""
    return settings.model_copy(update={"search_seconds": 3600.0})


@pytest.fixture
def run(service: Service) -> Callable[..., Any]:
    def run(search: dict[str, Any], seeds: Any = 2, kill: bool = False) -> Any:
        """A search from its first round to its end; with `kill`, every look is that of a service that just started."""
        made = service.post("/v1/comparisons", {"base": BASE, "search": search, "seeds": seeds}, 201)
        while True:
            while _waits(service):
                service.run()
            if advance(service.database, service.settings) == []:
                break
            if kill:
                assert advance(service.database, service.settings) == []
        return service.get(f"/v1/comparisons/{made['id']}")

    return run


def _waits(service: Service) -> bool:
    with service.database.read() as connection:
        return bool(connection.execute(leases.waiting(cuda=False)).scalar_one())


def report_of(service: Service, made: Any) -> Any:
    return service.get(f"/v1/comparisons/{made['id']}/report")


def test_a_random_search_draws_all_its_trials_at_once_within_their_ranges(service: Service) -> None:
    search = {"kind": "random", "ranges": RANGES, "trials": 30}
    plan = service.post("/v1/comparisons:validate", {"base": BASE, "search": search, "seeds": 2})
    again = service.post("/v1/comparisons:validate", {"base": BASE, "search": search, "seeds": 2})
    other = service.post("/v1/comparisons:validate", {"base": BASE, "search": search | {"seed": 1}, "seeds": 2})

    variants = plan["variants"]
    assert (plan["members"], plan["baseline"], plan["metric"]) == (62, "base", "validation/accuracy")
    assert variants[0]["changes"] == {}
    drawn = [variant["changes"] for variant in variants[1:]]
    rates = sorted(changes["optimizer.learning_rate"] for changes in drawn)
    assert 0.001 <= rates[0] < 0.02 < 0.5 < rates[-1] <= 10.0
    assert {tuple(changes["network.hidden"]) for changes in drawn} == {(4,), (8,), (16, 8)}
    assert all(8 <= changes["training.batch_size"] <= 40 for changes in drawn)
    assert [variant["changes"] for variant in again["variants"]] == [variant["changes"] for variant in variants]
    assert other["variants"][1]["changes"] != drawn[0]


def test_a_random_search_ends_with_its_members(service: Service, run: Callable[..., Any]) -> None:
    ended = run({"kind": "random", "ranges": RANGES, "trials": 2}, seeds=1)

    assert (ended["status"], ended["members"]["succeeded"]) == ("succeeded", 3)
    told = report_of(service, ended)["sentences"][0]
    assert told.startswith("Search (random): 2 of 2 trials. The best trial is #")


def test_a_tpe_search_asks_in_rounds_and_the_same_results_give_the_same_trials(
    service: Service, run: Callable[..., Any]
) -> None:
    search = {"kind": "tpe", "ranges": RANGES, "trials": 7, "first_trials": 3, "at_once": 2}
    made = service.post("/v1/comparisons", {"base": BASE, "search": search, "seeds": 1, "name": "a"}, 201)
    assert (made["members"]["total"], made["status"]) == (4, "queued")
    assert advance(service.database, service.settings) == []
    for _ in range(4):
        service.run()
    assert service.get(f"/v1/comparisons/{made['id']}")["status"] == "running"
    assert advance(service.database, service.settings) == [made["id"]]
    assert service.get(f"/v1/comparisons/{made['id']}")["members"] == made["members"] | {
        "total": 6,
        "queued": 2,
        "succeeded": 4,
    }
    while _waits(service):
        service.run()
        advance(service.database, service.settings)
    first, second = service.get(f"/v1/comparisons/{made['id']}"), run(search, seeds=1, kill=True)

    assert (first["status"], first["members"]["total"]) == ("succeeded", 8)
    assert [item["changes"] for item in first["variants"]] == [item["changes"] for item in second["variants"]]
    assert [item["name"] for item in first["variants"]][:2][0] == "base"
    figures = [report_of(service, made)["figures_sha256"] for made in (first, second)]
    assert figures[0] == figures[1]


def test_halving_lets_the_best_third_go_on_from_their_checkpoints_to_the_bits_of_a_whole_run(
    service: Service, run: Callable[..., Any]
) -> None:
    search = {"kind": "halving", "ranges": {"optimizer.learning_rate": RANGES["optimizer.learning_rate"]}, "trials": 9}
    ended = run(search)

    jobs = service.get(f"/v1/comparisons/{ended['id']}/members", order="asc", limit=100)["data"]
    steps = [job["progress"]["steps"] for job in jobs]
    assert [steps.count(count) for count in (4, 12, 36)] == [18, 6, 2 + 2]
    whole = [job for job in jobs if job["progress"]["steps"] == 36 and job["comparison"]["variant"] != "base"]
    assert {job["forked_from"]["step"] for job in whole} == {12}
    assert (ended["status"], ended["members"]["total"]) == ("succeeded", 20)

    last = whole[0]
    alone = {name: value for name, value in last["spec"].items() if name != "fork"}
    assert service.trained(alone)["result"]["weights_sha256"] == last["result"]["weights_sha256"]

    by_name = {item["name"]: item for item in report_of(service, ended)["figures"]["variants"]}
    first: dict[str, list[float]] = {job["comparison"]["variant"]: [] for job in jobs}
    for job in [job for job in jobs if job["progress"]["steps"] == 4]:
        values = service.get(f"/v1/jobs/{job['id']}/metrics", names="validation/accuracy")["series"]
        first[job["comparison"]["variant"]].append(values["validation/accuracy"]["values"][0])
    means = {name: sum(values) / 2 for name, values in first.items() if name != "base"}
    went_on = {job["comparison"]["variant"] for job in jobs if job["progress"]["steps"] == 12}
    assert min(means[name] for name in went_on) >= max(value for name, value in means.items() if name not in went_on)
    assert by_name[last["comparison"]["variant"]]["seeds"] == [0, 1]
    assert "8 trials were left behind" in report_of(service, ended)["sentences"][0]


def test_a_trial_that_diverges_does_not_go_on_and_all_that_do_end_the_search(
    service: Service, run: Callable[..., Any]
) -> None:
    search = {"kind": "halving", "ranges": {"optimizer.learning_rate": {"choices": [1e6]}}, "trials": 2, "rungs": 2}

    ended = run(search, seeds=1)

    assert (ended["status"], ended["members"]["diverged"]) == ("succeeded", 2)


def test_a_tpe_search_bears_trials_that_diverge_and_such_as_can_not_be_run(
    service: Service, run: Callable[..., Any]
) -> None:
    ranges = {
        "optimizer.learning_rate": {"choices": [0.1, 1e6]},
        "training.batch_size": {"choices": [16, 500]},
    }
    search = {"kind": "tpe", "ranges": ranges, "trials": 12, "first_trials": 1, "at_once": 11}
    search["seed"] = _seed_whose_first_trial_fits(search)

    ended = run(search, seeds=1)

    assert ended["status"] == "succeeded"
    told = report_of(service, ended)["sentences"][0]
    assert "12 of 12 trials" in told
    assert "could not be run: the spec can not be run" in told
    assert 1 <= ended["members"]["total"] - 1 < 12


def _seed_whose_first_trial_fits(search: dict[str, Any]) -> int:
    """What is drawn for the first round is refused at once, and what is asked for later is not."""
    draws = (drawn(TPESearch.model_validate(search | {"seed": seed}), 1) for seed in range(20))
    return next(seed for seed, values in enumerate(draws) if values["training.batch_size"] == 16)


def test_a_cancelled_search_has_no_further_round(service: Service) -> None:
    search = {"kind": "tpe", "ranges": RANGES, "trials": 4, "first_trials": 1, "at_once": 1}
    made = service.post("/v1/comparisons", {"base": BASE, "search": search, "seeds": 1}, 201)
    service.run()
    service.run()

    stopped = service.post(f"/v1/comparisons/{made['id']}/cancel", None, 202)

    assert stopped["status"] == "cancelled"
    advance(service.database, service.settings)
    assert advance(service.database, service.settings) == []
    assert service.get(f"/v1/comparisons/{made['id']}")["members"]["total"] == 2


def test_two_that_look_at_once_queue_one_round(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second comes to its transaction when the first has committed its own."""
    search = {"kind": "tpe", "ranges": RANGES, "trials": 3, "first_trials": 1, "at_once": 2}
    made = service.post("/v1/comparisons", {"base": BASE, "search": search, "seeds": 1}, 201)
    service.run()
    service.run()
    done: list[Any] = []
    original = service.database.write

    def late() -> Any:
        if not done:
            done.append(None)
            done.append(advance(service.database, service.settings))
        return original()

    monkeypatch.setattr(service.database, "write", late)

    assert advance(service.database, service.settings) == []
    assert done[1] == [made["id"]]
    assert service.get(f"/v1/comparisons/{made['id']}")["members"]["total"] == 4


def test_what_is_drawn_and_can_not_be_run_is_refused_at_its_range(service: Service) -> None:
    for path, given, said in [
        ("optimiser.rate", {"choices": [1]}, "did you mean optimizer"),
        ("training.seed", {"choices": [1]}, "`seeds` of the comparison"),
        ("training.batch_size", {"choices": [500]}, "set at most"),
        ("optimizer.learning_rate", {"low": 2.0}, "must have low and high"),
        ("optimizer.learning_rate", {"low": 0.0, "high": 1.0, "log": True}, "above 0 with log"),
    ]:
        body = {"base": BASE, "search": {"kind": "random", "ranges": {path: given}}}
        problem = service.post("/v1/comparisons", body, 422)["errors"][0]

        assert problem["pointer"] == f"/search/ranges/{path}", problem
        assert said in problem["message"]


def test_a_comparison_has_variants_or_a_search_and_a_search_a_budget(service: Service) -> None:
    random = {"kind": "random", "ranges": RANGES}
    halved = {"kind": "halving", "ranges": {"training.steps": {"choices": [1]}}}
    for body, pointer, said in [
        ({"search": random, "vary": {"batch_norm": [True]}}, "/vary", "give one of them"),
        ({}, "/vary", "give one of them"),
        ({"search": random | {"kind": "grid"}}, "/search/kind", "random, tpe, halving"),
        ({"search": random | {"ranges": {}}}, "/search/ranges", "at least 1"),
        ({"search": random | {"trials": 900}}, "/seeds", "are the most here"),
        ({"search": random | {"kind": "halving", "rungs": 9}}, "/search/rungs", "take fewer"),
        ({"search": halved}, "/search/ranges/training.steps", "halving, which decides"),
    ]:
        problem = service.post("/v1/comparisons", {"base": BASE} | body, 422)["errors"][0]

        assert problem["pointer"] == pointer
        assert said in problem["message"]


def test_a_fork_of_a_search_keeps_its_checkpoint(service: Service, run: Callable[..., Any]) -> None:
    search = {"kind": "halving", "ranges": RANGES, "trials": 2, "rungs": 2, "factor": 2}
    ended = run(search, seeds=1)

    jobs = service.get(f"/v1/comparisons/{ended['id']}/members", order="asc", limit=100)["data"]
    last = next(job for job in jobs if job["forked_from"])
    with service.database.read() as connection:
        kept = [row.name for row in connection.execute(checkpoints.of_job(last["id"]))]
    assert any(name.startswith(f"checkpoints/{last['forked_from']['job_id']}/") for name in kept)


def test_a_search_that_can_not_go_on_ends_with_the_reason_and_keeps_no_other_back(service: Service) -> None:
    rate = {"optimizer.learning_rate": RANGES["optimizer.learning_rate"]}
    halving = {"kind": "halving", "ranges": rate, "trials": 3, "rungs": 2}
    tpe = {"kind": "tpe", "ranges": rate, "trials": 2, "first_trials": 1, "at_once": 1}
    base = BASE | {"training": BASE["training"] | {"steps": 12}}
    stuck = service.post("/v1/comparisons", {"base": BASE, "search": halving, "seeds": 1}, 201)
    other = service.post("/v1/comparisons", {"base": base, "search": tpe, "seeds": 1}, 201)
    while _waits(service):
        service.run()
    lowered = service.settings.model_copy(update={"maximum_steps": 20})

    assert sorted(advance(service.database, lowered)) == sorted([stuck["id"], other["id"]])

    assert advance(service.database, lowered) == []  # it is not tried again and again
    assert service.get(f"/v1/comparisons/{stuck['id']}")["terminal"]
    assert service.get(f"/v1/comparisons/{other['id']}")["members"]["queued"] == 1
    told = report_of(service, stuck)["sentences"][0]
    assert "It ended before its budget was used, because its next round was refused" in told
    assert "20" in told


def test_a_search_whose_checkpoint_is_gone_ends_with_the_reason(service: Service) -> None:
    rate = {"optimizer.learning_rate": RANGES["optimizer.learning_rate"]}
    search = {"kind": "halving", "ranges": rate, "trials": 3, "rungs": 2}
    made = service.post("/v1/comparisons", {"base": BASE, "search": search, "seeds": 1}, 201)
    while _waits(service):
        service.run()
    members = service.get(f"/v1/comparisons/{made['id']}/members")["data"]
    with service.database.write() as connection:
        ids = [item["id"] for item in members]
        connection.execute(tables.checkpoints.delete().where(tables.checkpoints.c.job_id.in_(ids)))

    assert advance(service.database, service.settings) == [made["id"]]

    assert advance(service.database, service.settings) == []
    assert service.get(f"/v1/comparisons/{made['id']}")["terminal"]
    assert "keeps no checkpoint to go on from" in report_of(service, made)["sentences"][0]
