"""The house rules as tests: imports go down only, effects have one doorway, rooms stay small."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("api", "bn_models", "cli", "core", "evenkeel", "migrations", "worker")
MAXIMUM_FILE_LINES = 300
MAXIMUM_FUNCTION_LINES = 50

OURS = {
    "core": (),
    "bn_models/architecture": ("core.spec", "core.errors"),
    "bn_models": ("bn_models", "core.spec", "core.errors"),
    "worker/trainer": ("worker", "bn_models", "core"),
    "worker": ("core",),
    "api": ("core", "bn_models.architecture", "bn_models.receipt"),  # which knows no torch: a test below
    "evenkeel": ("core.spec", "core.states", "core.settings", "core.errors"),
    "cli": ("evenkeel", "api", "worker", "core", "migrations"),
    "migrations": ("core.tables", "core.settings"),
}
"""What a room may import of the others, besides itself. The longest matching folder counts."""

NOBODY = ("torch", "sqlalchemy", "celery", "fastapi", "onnxruntime", "alembic", "fsspec", "sklearn")
THEIRS = {
    "core": ("sqlalchemy", "fsspec", "celery"),
    "bn_models/architecture": (),
    "bn_models": ("torch", "onnxruntime"),
    "worker/trainer": ("torch", "sklearn"),
    "worker": ("sqlalchemy", "celery"),
    "api": ("sqlalchemy", "fastapi", "onnxruntime"),
    "evenkeel": (),
    "cli": ("sqlalchemy", "torch"),  # in processes of their own: `cli.main` loads neither
    "migrations": ("sqlalchemy", "alembic"),
}
"""Which of the heavy or effectful libraries a room may import."""


def files() -> Iterator[Path]:
    for room in ROOMS:
        yield from sorted((ROOT / room).rglob("*.py"))


def floor_of(path: Path) -> str:
    relative = path.relative_to(ROOT).as_posix()
    return max((floor for floor in OURS if relative.startswith(f"{floor}/")), key=len)


def imports_of(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def within(module: str, parents: tuple[str, ...]) -> bool:
    return any(module == parent or module.startswith(f"{parent}.") for parent in parents)


def test_imports_go_down_only() -> None:
    wrong = []
    for path in files():
        floor = floor_of(path)
        allowed = (*OURS[floor], floor.replace("/", "."))
        wrong += [
            f"{path.relative_to(ROOT)} imports {module}"
            for module in imports_of(path)
            if module.split(".")[0] in ROOMS and not within(module, allowed)
        ]
    assert wrong == []


def test_heavy_libraries_stay_in_their_rooms() -> None:
    wrong = []
    for path in files():
        forbidden = tuple(set(NOBODY) - set(THEIRS[floor_of(path)]))
        wrong += [
            f"{path.relative_to(ROOT)} imports {module}" for module in imports_of(path) if within(module, forbidden)
        ]
    assert wrong == []


def test_only_the_trainer_of_the_worker_sees_the_networks() -> None:
    wrong = [
        str(path.relative_to(ROOT))
        for path in files()
        if floor_of(path) == "worker" and any(within(module, ("bn_models", "torch")) for module in imports_of(path))
    ]
    assert wrong == []


def test_celery_is_spoken_in_two_files_only() -> None:
    speakers = [
        path.relative_to(ROOT).as_posix()
        for path in files()
        if any(within(module, ("celery", "kombu")) for module in imports_of(path))
    ]
    assert speakers == ["core/queue.py", "worker/tasks.py"]


def test_s3_is_spoken_in_one_file_only() -> None:
    speakers = [
        path.relative_to(ROOT).as_posix()
        for path in files()
        if any(within(module, ("s3fs", "botocore", "aiobotocore", "aiohttp", "boto3")) for module in imports_of(path))
    ]
    assert speakers == ["core/object_store.py"]


def test_no_import_hides_in_a_function() -> None:
    hidden = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in files()
        for function in ast.walk(ast.parse(path.read_text()))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    assert hidden == []


def test_only_settings_reads_the_environment() -> None:
    """To write a variable is another matter: some libraries can be told in no other way."""
    readers = []
    for path in files():
        nodes = list(ast.walk(ast.parse(path.read_text())))
        written = {
            id(node.value) for node in nodes if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store)
        }
        readers += [
            str(path.relative_to(ROOT))
            for node in nodes
            if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv") and id(node) not in written
        ]
    assert readers == []


def test_nobody_pickles() -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {module}"
        for path in files()
        for module in imports_of(path)
        if within(module, ("pickle", "cloudpickle", "joblib", "dill", "marshal", "shelve"))
    ]
    assert wrong == []


def test_sql_statements_live_in_queries() -> None:
    makers = ("select", "insert", "update", "delete", "text")
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno} imports {alias.name}"
        for path in files()
        if "queries" not in path.parts and floor_of(path) in ("api", "worker", "cli", "worker/trainer")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module == "sqlalchemy"
        for alias in node.names
        if alias.name in makers
    ]
    assert wrong == []


def test_files_and_functions_stay_small() -> None:
    long = [
        f"{path.relative_to(ROOT)}: {len(path.read_text().splitlines())} lines"
        for path in files()
        if len(path.read_text().splitlines()) > MAXIMUM_FILE_LINES and "versions" not in path.parts
    ]
    for path in files():
        if "versions" in path.parts:
            continue
        long += [
            f"{path.relative_to(ROOT)}:{node.lineno} {node.name}: {node.end_lineno - node.lineno + 1} lines"
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            and node.end_lineno is not None
            and node.end_lineno - node.lineno + 1 > MAXIMUM_FUNCTION_LINES
        ]
    assert long == []


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("core.spec", ("torch", "sqlalchemy", "fastapi", "numpy")),
        ("core.tables", ("torch", "fastapi")),
        ("bn_models.architecture", ("torch", "numpy")),
        ("bn_models.receipt", ("torch", "onnx")),
        ("api.main", ("torch", "worker", "alembic", "sklearn", "celery", "s3fs")),
        ("worker.local", ("torch", "fastapi", "bn_models", "numpy", "celery", "s3fs")),
        ("worker.trainer.main", ("fastapi", "sqlalchemy", "celery", "typer", "alembic", "s3fs")),
        ("evenkeel", ("torch", "sqlalchemy", "fastapi", "numpy")),
        ("cli.main", ("torch", "fastapi", "sqlalchemy", "api", "worker")),
    ],
)
def test_a_room_loads_only_what_it_needs(module: str, absent: tuple[str, ...]) -> None:
    program = f"import {module}, sys; print([name for name in {absent!r} if name in sys.modules])"

    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, cwd=ROOT)

    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "[]"
