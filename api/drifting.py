"""What a version in memory has seen, as clients are told."""

from api.inference.lanes import Lane
from api.inference.layers import NOT_WATCHED, unwatched
from api.schemas.models import Drift, LayersDrift
from core.errors import Conflict

NO_INPUTS = "its card has no moments of the training inputs, or EVENKEEL_DRIFT_SHARE is 0"


def drift_report(lane: Lane) -> Drift:
    """Raises Conflict where neither inputs nor layers are looked at."""
    reason = None if lane.layers else unwatched(lane.model.card) or NOT_WATCHED
    if lane.drift is None and lane.layers is None:
        raise Conflict(f"version {lane.version} of model {lane.name} is not watched: {NO_INPUTS}; layers: {reason}")
    nothing = {"rows": 0, "share": 0.0, "threshold": 0.0, "exceeded": [], "inputs": [], "events": []}
    return Drift(
        model=lane.name,
        version=lane.version,
        statistics_sha256=lane.statistics_sha256,
        **(nothing | {"inputs_reason": NO_INPUTS} if lane.drift is None else lane.drift.report()),
        layers=LayersDrift(**lane.layers.report()) if lane.layers else None,
        layers_reason=reason,
    )
