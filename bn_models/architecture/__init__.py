"""Network families as lists of layers, their shapes, and what may be trained at all. No torch in here."""

from bn_models.architecture.admission import Plan, admit
from bn_models.architecture.batches import batch_bounds
from bn_models.architecture.families import layers_of
from bn_models.architecture.shapes import LayerDoesNotFit, Placed, flat, place

__all__ = ["LayerDoesNotFit", "Placed", "Plan", "admit", "batch_bounds", "flat", "layers_of", "place"]
