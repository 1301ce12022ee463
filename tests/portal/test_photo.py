"""Photos keep their pixels and lose everything else: place, owner, comments; what is no photo is refused."""

from __future__ import annotations

import io
import subprocess
import sys

import pytest
from PIL import Image, PngImagePlugin

from portal.field import photo
from portal.field.photo import MAX_SIDE, MAX_UPLOAD_BYTES, PhotoRefused, clean_photo

SECRET = b"Muscat-secret-comment"
GPS = {1: "N", 2: (23.0, 35.0, 12.5), 3: "E", 4: (58.0, 24.0, 3.25)}


def camera_tags(orientation=1):
    tags = Image.Exif()
    tags[0x0110] = "Phone of Salim"
    tags[0x0112] = orientation
    tags.get_ifd(0x8825).update(GPS)
    return tags


def place_in(content):
    return dict(Image.open(io.BytesIO(content)).getexif().get_ifd(0x8825)).get(2)


def jpeg(size=(64, 40), *, orientation=1, exif=True):
    """A phone's picture: the left half red, the right half blue, with its place, its maker and a comment."""
    picture = Image.new("RGB", size, "red")
    picture.paste("blue", (size[0] // 2, 0, size[0], size[1]))
    out = io.BytesIO()
    extra = {}
    if exif:
        extra = {
            "exif": camera_tags(orientation),
            "comment": SECRET,
            "xmp": b"<x:xmpmeta>GPSLatitude 23.58</x:xmpmeta>",
        }
    picture.save(out, "JPEG", quality=95, **extra)
    return out.getvalue()


def test_the_place_and_all_else_a_camera_writes_are_gone():
    upload = jpeg()
    assert place_in(upload) == GPS[2], "it really was there"
    assert SECRET in upload and b"GPSLatitude" in upload
    clean = clean_photo(upload)
    after = Image.open(io.BytesIO(clean.content))
    assert len(after.getexif()) == 0
    assert set(after.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}
    for trace in (SECRET, b"GPSLatitude", b"Exif", b"http://ns.adobe.com", b"Salim"):
        assert trace not in clean.content
    red, blue = after.getpixel((8, 20)), after.getpixel((56, 20))
    assert red[0] > 200 > 60 > red[2] and blue[2] > 200 > 60 > blue[0]


# Where the red half of the picture goes, by EXIF 2.32, 4.6.4 A.
@pytest.mark.parametrize(
    ("orientation", "size", "red_at"),
    [
        (1, (64, 40), (8, 20)),
        (2, (64, 40), (56, 20)),
        (3, (64, 40), (56, 20)),
        (4, (64, 40), (8, 20)),
        (5, (40, 64), (20, 8)),
        (6, (40, 64), (20, 8)),
        (7, (40, 64), (20, 56)),
        (8, (40, 64), (20, 56)),
        (9, (64, 40), (8, 20)),  # no such turn: as it is
    ],
)
def test_a_picture_is_set_upright_before_its_orientation_is_forgotten(orientation, size, red_at):
    clean = clean_photo(jpeg(orientation=orientation))
    assert (clean.width, clean.height) == size
    red = Image.open(io.BytesIO(clean.content)).getpixel(red_at)
    assert red[0] > 200 > 60 > red[2]


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_other_formats_become_jpeg_and_lose_their_place_too(kind):
    picture = Image.new("RGBA", (30, 20), (0, 0, 0, 0))
    out = io.BytesIO()
    words = PngImagePlugin.PngInfo()
    words.add_text("Location", "23.58,58.40")
    extra = {"pnginfo": words} if kind == "PNG" else {"xmp": b"<x:xmpmeta>23.58,58.40</x:xmpmeta>"}
    picture.save(out, kind, exif=camera_tags(6), **extra)
    assert place_in(out.getvalue()) == GPS[2] and b"Salim" in out.getvalue()
    assert b"23.58" in out.getvalue()
    clean = clean_photo(out.getvalue())
    after = Image.open(io.BytesIO(clean.content))
    assert (after.format, after.size) == ("JPEG", (20, 30))
    assert min(after.getpixel((5, 5))) > 240, "what is transparent becomes white, not black"
    assert len(after.getexif()) == 0 and place_in(clean.content) is None
    for trace in (b"23.58", b"Salim", b"Exif", b"xmpmeta"):
        assert trace not in clean.content


def test_a_large_picture_is_made_small():
    clean = clean_photo(jpeg((3200, 800), exif=False))
    assert (clean.width, clean.height) == (MAX_SIDE, MAX_SIDE // 4)


@pytest.mark.parametrize("value", [0, 4, 255])
def test_a_damaged_description_costs_no_photo_and_breaks_nothing(value):
    upload = jpeg(orientation=6)
    start = upload.index(b"Exif")
    kept = 0
    for place in range(start, start + 200):
        damaged = bytearray(upload)
        damaged[place] = value
        try:
            clean_photo(bytes(damaged))
            kept += 1
        except PhotoRefused as refused:
            assert refused.reason == "photo_unreadable"
    assert kept > 150


@pytest.mark.parametrize(
    ("upload", "reason"),
    [
        (b"", "photo_empty"),
        (b"x" * (MAX_UPLOAD_BYTES + 1), "photo_too_large"),
        (b"GIF89a" + b"\x00" * 50, "photo_unreadable"),
        (b"%PDF-1.7", "photo_unreadable"),
        (jpeg()[:300], "photo_unreadable"),
        (b"\xff\xd8\xff\xe0" + b"\x00" * 40, "photo_unreadable"),
        (b"\x89PNG\r\n\x1a\n" + b"\x00" * 40, "photo_unreadable"),
    ],
)  # fmt: skip
def test_what_is_no_photo_is_refused(upload, reason):
    with pytest.raises(PhotoRefused) as refused:
        clean_photo(upload)
    assert refused.value.reason == reason


def flat(kind, size, **extra):
    """A picture of one colour: large on the screen, small on the wire."""
    out = io.BytesIO()
    Image.new("L", size).save(out, kind, **extra)
    return out.getvalue()


@pytest.mark.parametrize(
    "upload",
    [
        flat("PNG", (4001, 4000)),
        flat("PNG", (16_000, 1_001)),
        flat("JPEG", (4001, 4000), progressive=True),  # its coefficients are all held before a line comes out
        flat("JPEG", (8001, 8000)),
        flat("JPEG", (60_000, 1_000)),  # too narrow to be unpacked at half
    ],
)
def test_a_bomb_is_refused_by_its_header(upload):
    assert len(upload) < 1_000_000
    with pytest.raises(PhotoRefused, match="photo_too_many_pixels"):
        clean_photo(upload)


def test_a_phones_largest_jpeg_is_taken():
    clean = clean_photo(flat("JPEG", (8000, 8000)))
    assert (clean.width, clean.height) == (MAX_SIDE, MAX_SIDE)
    assert 2 * (Image.MAX_IMAGE_PIXELS or 0) > photo.MAX_PIXELS, "Pillow's own bound stands behind ours"


MEASURE = """
import resource, sys
from PIL import JpegImagePlugin, PngImagePlugin, WebPImagePlugin
from portal.field.photo import clean_photo
upload = sys.stdin.buffer.read()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
clean_photo(upload)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_the_largest_picture_takes_the_memory_that_we_say(kind):
    out = io.BytesIO()
    Image.new("RGBA", (4000, 4000)).save(out, kind, exif=camera_tags(6))
    ran = subprocess.run(
        [sys.executable, "-c", MEASURE], input=out.getvalue(), capture_output=True, check=True, timeout=60
    )
    assert int(ran.stdout) < 350, "MB"
