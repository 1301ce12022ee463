"""Make a photo anew from its pixels, so that nothing a camera writes beside them is kept: no place, no owner."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass, field
from typing import Final, Literal

from PIL import ExifTags, Image

MAX_UPLOAD_BYTES: Final = (
    8 * 1024 * 1024
)  # what a phone's camera writes at its finest; BODY_LIMIT is above it
MAX_KEPT_BYTES: Final = 2 * 1024 * 1024  # the table's own bound
MAX_PIXELS: Final = 64_000_000  # a phone's largest picture
# What is unpacked at once, some 17 bytes a pixel in the worst format: 270 MB. A plain JPEG is unpacked at half or a
# quarter of its sides; PNG, WebP and progressive JPEG only whole.
MAX_UNPACKED: Final = 16_000_000
MAX_SIDE: Final = 1600  # a meter's plate is readable at this; larger fills the database for nothing
QUALITIES: Final = (82, 70, 55)
FORMATS: Final = ("JPEG", "PNG", "WEBP")

# EXIF 2.32, 4.6.4 A: how to turn what the camera wrote.
_TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

Reason = Literal["photo_empty", "photo_too_large", "photo_too_many_pixels", "photo_unreadable"]


class PhotoRefused(Exception):
    """The file is not kept; `reason` says why."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(f"refused: {reason}")
        self.reason: Reason = reason


@dataclass(frozen=True, slots=True)
class CleanPhoto:
    """A JPEG of pixels only."""

    content: bytes = field(repr=False)
    width: int
    height: int


def clean_photo(upload: bytes) -> CleanPhoto:
    """Return the picture upright, at most MAX_SIDE on its longer side, without any metadata.

    Takes JPEG, PNG and WebP; of a moving picture the first frame. Raises PhotoRefused. Takes up to a second:
    call it in a thread.
    """
    if not upload:
        raise PhotoRefused("photo_empty")
    if len(upload) > MAX_UPLOAD_BYTES:
        raise PhotoRefused("photo_too_large")
    try:
        with warnings.catch_warnings():
            # Pillow only warns where we refuse, and of damage that costs no pixel.
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(upload), formats=FORMATS) as opened:
                _check_size(opened)
                picture = _pixels_only(opened)
    except PhotoRefused:
        raise
    except Image.DecompressionBombError:
        raise PhotoRefused("photo_too_many_pixels") from None
    except Exception:  # noqa: BLE001 - a library that reads strangers' bytes fails in any way: struct.error, KeyError
        raise PhotoRefused("photo_unreadable") from None
    return _encoded(picture)


def _check_size(opened: Image.Image) -> None:
    """Judge by the header, before a pixel is unpacked; let a JPEG be unpacked smaller."""
    unpacked = pixels = opened.width * opened.height
    if opened.draft("RGB", (MAX_SIDE, MAX_SIDE)) is not None and "progressive" not in opened.info:
        unpacked = opened.width * opened.height
    if pixels > MAX_PIXELS or unpacked > MAX_UNPACKED:
        raise PhotoRefused("photo_too_many_pixels")


def _pixels_only(opened: Image.Image) -> Image.Image:
    orientation = opened.getexif().get(ExifTags.Base.Orientation)
    opened.thumbnail((MAX_SIDE, MAX_SIDE))  # first: whatever comes after works on a small picture
    turn = _TURNS.get(orientation) if isinstance(orientation, int) else None
    upright = opened if turn is None else opened.transpose(turn)
    with_alpha = upright.convert("RGBA")
    # A new picture has no `info`: comments and profiles of the old one cannot travel along.
    plain = Image.new("RGB", with_alpha.size, "white")
    plain.paste(with_alpha, mask=with_alpha.getchannel("A"))
    return plain


def _encoded(picture: Image.Image) -> CleanPhoto:
    for quality in QUALITIES:
        out = io.BytesIO()
        picture.save(out, "JPEG", quality=quality, optimize=True)
        if out.tell() <= MAX_KEPT_BYTES:
            return CleanPhoto(out.getvalue(), picture.width, picture.height)
    raise PhotoRefused("photo_too_large")
