"""The application in this process, behind starlette's test client."""

import warnings

with warnings.catch_warnings():  # it asks for a successor of httpx, which our SDK has not moved to
    warnings.simplefilter("ignore")
    from starlette.testclient import TestClient

__all__ = ["TestClient"]
