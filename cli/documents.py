"""What a command is given: JSON from a file or standard input, and `path=value` pairs."""

import json
import sys
from pathlib import Path
from typing import Any

from core.errors import FieldProblem, InputInvalid


def read_json(source: str) -> Any:
    """The document in a file, or on standard input for `-`. Raises InputInvalid."""
    try:
        text = sys.stdin.read() if source == "-" else Path(source).read_text()
    except OSError as error:
        raise InputInvalid(f"{source} can not be read ({error.strerror}): give the path of a JSON file") from None
    except UnicodeDecodeError:
        raise InputInvalid(f"{source} is not text in UTF-8: give a JSON file") from None
    try:
        return json.loads(text)
    except ValueError as error:
        name = "standard input" if source == "-" else source
        raise InputInvalid(f"{name} is not JSON ({error}): write it as JSON") from None


def pairs(given: list[str]) -> dict[str, str]:
    """`key=value` texts as a mapping. Raises InputInvalid."""
    return dict(_halves(text) for text in given)


def override(document: dict[str, Any], given: list[str]) -> dict[str, Any]:
    """The document with `path.to.field=value` written into it; a value that is JSON is taken as JSON, else as text."""
    result: dict[str, Any] = json.loads(json.dumps(document))
    for text in given:
        path, value = _halves(text)
        _put(result, path.split("."), _value(value), path)
    return result


def values(given: list[str]) -> dict[str, Any]:
    """`path=value` texts as a mapping, the values taken as in `override`. Raises InputInvalid."""
    return {path: _value(text) for path, text in map(_halves, given)}


def _put(target: dict[str, Any], steps: list[str], value: Any, path: str) -> None:
    for step in steps[:-1]:
        inner = target.setdefault(step, {})
        if not isinstance(inner, dict):
            problem = FieldProblem(f"/{path.replace('.', '/')}", "not_an_object", f"{step} is {inner!r}, not an object")
            raise InputInvalid(f"--set {path}: {problem.message}; set {step} itself", (problem,))
        target = inner
    target[steps[-1]] = value


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _halves(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise InputInvalid(f"{text!r} is no pair: write name=value")
    return name, value
