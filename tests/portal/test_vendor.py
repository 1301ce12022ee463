import json
from pathlib import Path

import pytest

from portal.vendor import FILES, PackageMissing, copy_vendor_files, missing_vendor_files

TOP = Path(__file__).resolve().parents[2]


def packages(folder: Path) -> Path:
    for source in FILES.values():
        path = folder / source
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    return folder


def test_named_files_are_copied_and_nothing_else(tmp_path: Path) -> None:
    modules = packages(tmp_path / "node_modules")
    target = tmp_path / "vendor"
    assert missing_vendor_files(target) == list(FILES)
    copied = copy_vendor_files(modules, target)
    assert sorted(path.name for path in target.iterdir()) == sorted(FILES)
    assert len(copied) == len(FILES)
    assert missing_vendor_files(target) == []


def test_a_missing_package_is_named_and_nothing_is_copied(tmp_path: Path) -> None:
    modules = packages(tmp_path / "node_modules")
    gone = FILES["htmx.min.js"]
    (modules / gone).unlink()
    with pytest.raises(PackageMissing, match=gone):
        copy_vendor_files(modules, tmp_path / "vendor")
    assert not (tmp_path / "vendor").exists()


def test_every_package_brings_its_licence() -> None:
    assert {name.split(".")[0] for name in FILES if name.endswith(".LICENSE")} == {
        "htmx",
        "plex",
        "NotoNaskhArabic",
    }


def test_the_lock_pins_by_hash_and_names_no_host() -> None:
    lock = json.loads((TOP / "package-lock.json").read_text())
    named = {path: row for path, row in lock["packages"].items() if path}
    assert named
    for path, row in named.items():
        assert row["integrity"].startswith("sha512-"), path
        assert "resolved" not in row, path
    wanted = json.loads((TOP / "package.json").read_text())
    for name, version in {**wanted["dependencies"], **wanted["devDependencies"]}.items():
        assert named[f"node_modules/{name}"]["version"] == version, "versions are exact"


def test_what_the_stylesheet_asks_for_is_vendored() -> None:
    css = (TOP / "portal/static/raseed.css").read_text()
    for part in css.split('url("vendor/')[1:]:
        assert part.split('"')[0] in FILES
