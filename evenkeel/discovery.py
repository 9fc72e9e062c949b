"""Finds the service: what was given, else EVENKEEL_URL and EVENKEEL_API_KEY, else what runs on this home."""

import json
from dataclasses import dataclass
from pathlib import Path

from core.settings import Settings, load_settings
from evenkeel.errors import NotReachable, Unauthenticated


@dataclass(frozen=True)
class Address:
    url: str
    api_key: str


def locate(url: str | None = None, api_key: str | None = None, home: Path | str | None = None) -> Address:
    """Raises NotReachable when no service is known, Unauthenticated when no key is."""
    settings = load_settings(url=url, api_key=api_key, home=home)
    found = (settings.url or _running(settings)).rstrip("/")
    if not found.startswith(("http://", "https://")):
        raise NotReachable(f"{found!r} is no address of a service: EVENKEEL_URL begins with http:// or https://")
    return Address(found, settings.api_key or _kept(settings))


def _running(settings: Settings) -> str:
    try:
        return str(json.loads(settings.service_file.read_text())["url"])
    except FileNotFoundError:
        raise NotReachable(
            f"no service runs on {settings.home}: start one with `evenkeel up`, or set EVENKEEL_URL"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise NotReachable(
            f"{settings.service_file} can not be read ({error}): start `evenkeel up` again, or set EVENKEEL_URL"
        ) from None


def _kept(settings: Settings) -> str:
    try:
        return settings.resolved_admin_key_file.read_text().strip()
    except OSError as error:
        raise Unauthenticated(
            f"no API key: {settings.resolved_admin_key_file} can not be read ({error.strerror}); set EVENKEEL_API_KEY"
        ) from None
