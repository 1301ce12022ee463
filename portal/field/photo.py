"""Make a photo anew from its pixels, so that nothing a camera writes beside them is kept: no place, no owner."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass, field
from typing import Final, Literal

from PIL import Image, ImageOps, UnidentifiedImageError

MAX_UPLOAD_BYTES: Final = (
    8 * 1024 * 1024
)  # what a phone's camera writes at its finest; BODY_LIMIT is above it
MAX_KEPT_BYTES: Final = 2 * 1024 * 1024  # the table's own bound
MAX_PIXELS: Final = 64_000_000  # a phone's largest picture; 64 million pixels take 192 MB for a moment
MAX_SIDE: Final = 1600  # a meter's plate is readable at this; larger fills the database for nothing
QUALITIES: Final = (82, 70, 55)
FORMATS: Final = ("JPEG", "PNG", "WEBP")

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
            # Pillow only warns where we refuse: our bound is below its own.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(upload), formats=FORMATS) as opened:
                # The header says the size before a pixel is unpacked.
                if opened.width * opened.height > MAX_PIXELS:
                    raise PhotoRefused("photo_too_many_pixels")
                opened.draft("RGB", (MAX_SIDE, MAX_SIDE))  # a JPEG is then decoded at half or a quarter
                picture = _pixels_only(opened)
    except Image.DecompressionBombError:
        raise PhotoRefused("photo_too_many_pixels") from None
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, MemoryError, OverflowError):
        raise PhotoRefused("photo_unreadable") from None
    return _encoded(picture)


def _pixels_only(opened: Image.Image) -> Image.Image:
    upright = ImageOps.exif_transpose(opened)
    upright.thumbnail((MAX_SIDE, MAX_SIDE))
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
