"""Photos keep their pixels and lose everything else: place, owner, comments; what is no photo is refused."""

from __future__ import annotations

import io

import pytest
from PIL import Image, PngImagePlugin

from portal.field import photo
from portal.field.photo import MAX_SIDE, MAX_UPLOAD_BYTES, PhotoRefused, clean_photo

SECRET = b"Muscat-secret-comment"
GPS = {1: "N", 2: (23.0, 35.0, 12.5), 3: "E", 4: (58.0, 24.0, 3.25)}


def jpeg(size=(64, 40), *, orientation=1, exif=True):
    """A phone's picture: the left half red, the right half blue, with its place, its maker and a comment."""
    picture = Image.new("RGB", size, "red")
    picture.paste("blue", (size[0] // 2, 0, size[0], size[1]))
    out = io.BytesIO()
    extra = {}
    if exif:
        tags = Image.Exif()
        tags[0x0110] = "Phone of Salim"
        tags[0x0112] = orientation
        tags.get_ifd(0x8825).update(GPS)
        extra = {"exif": tags, "comment": SECRET, "xmp": b"<x:xmpmeta>GPSLatitude 23.58</x:xmpmeta>"}
    picture.save(out, "JPEG", quality=95, **extra)
    return out.getvalue()


def test_the_place_and_all_else_a_camera_writes_are_gone():
    upload = jpeg()
    before = Image.open(io.BytesIO(upload))
    assert dict(before.getexif().get_ifd(0x8825))[2] == (23.0, 35.0, 12.5)  # it really was there
    assert SECRET in upload and b"GPSLatitude" in upload
    clean = clean_photo(upload)
    after = Image.open(io.BytesIO(clean.content))
    assert len(after.getexif()) == 0
    assert set(after.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}
    for trace in (SECRET, b"GPSLatitude", b"Exif", b"http://ns.adobe.com", b"Salim"):
        assert trace not in clean.content
    red, blue = after.getpixel((8, 20)), after.getpixel((56, 20))
    assert red[0] > 200 > 60 > red[2] and blue[2] > 200 > 60 > blue[0]


def test_a_picture_is_set_upright_before_its_orientation_is_forgotten():
    clean = clean_photo(jpeg(orientation=6))  # held upright: the camera's rows are the picture's columns
    assert (clean.width, clean.height) == (40, 64)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_other_formats_become_jpeg(kind):
    picture = Image.new("RGBA", (30, 20), (0, 0, 0, 0))
    out = io.BytesIO()
    words = PngImagePlugin.PngInfo()
    words.add_text("Location", "23.58,58.40")
    picture.save(out, kind, **({"pnginfo": words} if kind == "PNG" else {}))
    clean = clean_photo(out.getvalue())
    after = Image.open(io.BytesIO(clean.content))
    assert after.format == "JPEG"
    assert min(after.getpixel((5, 5))) > 240, "what is transparent becomes white, not black"
    assert b"23.58" not in clean.content


def test_a_large_picture_is_made_small():
    clean = clean_photo(jpeg((3200, 800), exif=False))
    assert (clean.width, clean.height) == (MAX_SIDE, MAX_SIDE // 4)


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


def test_a_bomb_is_refused_by_its_header(monkeypatch):
    monkeypatch.setattr(photo, "MAX_PIXELS", 1_000)
    with pytest.raises(PhotoRefused, match="photo_too_many_pixels"):
        clean_photo(jpeg((64, 40)))
    monkeypatch.undo()
    assert 2 * (Image.MAX_IMAGE_PIXELS or 0) > photo.MAX_PIXELS, "Pillow's own bound stands behind ours"
