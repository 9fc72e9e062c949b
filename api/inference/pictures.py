"""Images as people have them: PNG and JPEG bytes to the pixels that a model's card asks for."""

import base64
import binascii
import warnings
from io import BytesIO
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from core.errors import FieldProblem, InputInvalid

Array = NDArray[np.float32]
FORMATS = ("PNG", "JPEG")
MAXIMUM_PIXELS = 4096 * 4096
MODES = {1: "L", 3: "RGB"}


def pictures(elements: list[bytes | str], model: Any, where: str) -> Array:
    """float32 (n, channels, height, width), pixels in the card's own range. Text is base64.

    Raises InputInvalid with the number of the first that is no image, or too large.
    """
    if model.card["input"].get("kind") != "image" or len(model.shape) != 3 or model.shape[0] not in MODES:
        _refuse(where, "not_an_image_model", "this model takes no images: give numbers")
    return np.stack([_pixels(element, model, f"{where}/{index}") for index, element in enumerate(elements)])


def _pixels(element: bytes | str, model: Any, where: str) -> Array:
    channels, height, width = model.shape
    content = _decoded(element, where) if isinstance(element, str) else element
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(BytesIO(content), formats=FORMATS) as image:
                if image.width * image.height > MAXIMUM_PIXELS:  # read from the header: nothing is decoded yet
                    _refuse(where, "too_large", f"{image.width} x {image.height} pixels: send a smaller image")
                shaped = image.convert(MODES[channels])
                if shaped.size != (width, height):
                    shaped = shaped.resize((width, height), Image.Resampling.BILINEAR)
                pixels = np.asarray(shaped, np.float32)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        _refuse(where, "not_an_image", f"this is no PNG or JPEG that can be read: {str(error)[:120]}")
    highest = (model.card["input"].get("pixel_range") or (0, 255))[1]
    scaled = pixels if highest == 255 else pixels * np.float32(highest / 255)
    return scaled.reshape(height, width, channels).transpose(2, 0, 1)


def _decoded(text: str, where: str) -> bytes:
    try:
        return base64.b64decode(text.partition("base64,")[2] or text, validate=True)
    except (binascii.Error, ValueError):
        _refuse(where, "not_base64", "this is no base64: give the bytes of a PNG or JPEG so encoded")


def _refuse(where: str, code: str, message: str) -> NoReturn:
    raise InputInvalid(f"{where}: {message}", (FieldProblem(where, code, message),))
