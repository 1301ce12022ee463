"""Copies the named files of npm packages that pages serve into static/vendor; `python -m portal.vendor` runs it.

`npm ci --ignore-scripts` comes first. The folder is not in git: fonts and scripts are never committed.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

VENDOR_DIR = Path(__file__).parent / "static" / "vendor"
NODE_MODULES = Path(__file__).parent.parent / "node_modules"

_PLEX = "@fontsource/ibm-plex-sans-arabic"
_NASKH = "@expo-google-fonts/noto-naskh-arabic"
FILES: dict[str, str] = {
    "htmx.min.js": "htmx.org/dist/htmx.min.js",
    "htmx.LICENSE": "htmx.org/LICENSE",
    **{
        f"plex-{script}-{weight}.woff2": f"{_PLEX}/files/ibm-plex-sans-arabic-{script}-{weight}-normal.woff2"
        for script in ("arabic", "latin")
        for weight in (400, 500, 600, 700)
    },
    "plex.LICENSE": f"{_PLEX}/LICENSE",
    "NotoNaskhArabic_400Regular.ttf": f"{_NASKH}/400Regular/NotoNaskhArabic_400Regular.ttf",
    "NotoNaskhArabic_700Bold.ttf": f"{_NASKH}/700Bold/NotoNaskhArabic_700Bold.ttf",
    "NotoNaskhArabic.LICENSE": f"{_NASKH}/LICENSE_FONT",
}


class PackageMissing(Exception):
    """A file that npm should have brought is not there."""


def copy_vendor_files(node_modules: Path = NODE_MODULES, target: Path = VENDOR_DIR) -> list[Path]:
    """Copy every named file and return what was copied. Raises PackageMissing, having copied nothing."""
    for source in FILES.values():
        if not (node_modules / source).is_file():
            raise PackageMissing(f"{source} is missing: run  npm ci --ignore-scripts  first")
    target.mkdir(parents=True, exist_ok=True)
    copied = []
    for name, source in FILES.items():
        shutil.copyfile(node_modules / source, target / name)
        copied.append(target / name)
    return copied


def missing_vendor_files(target: Path = VENDOR_DIR) -> list[str]:
    """Return the named files that are not in the folder yet."""
    return [name for name in FILES if not (target / name).is_file()]


def main() -> int:
    """Copy, and say how many or what to do."""
    try:
        copied = copy_vendor_files()
    except PackageMissing as error:
        sys.stderr.write(f"portal.vendor: {error}\n")
        return 1
    sys.stdout.write(f"{len(copied)} files in static/vendor\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
