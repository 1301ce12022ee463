"""Coverage-guided fuzzing of decode and of the meter's state machine with atheris: `make fuzz SECONDS=600`.

What it finds interesting is kept outside git; `--keep` writes the few inputs that between them show every
behaviour seen into tests/fuzz/corpus, which tests/token_engine/test_fuzz_corpus.py replays without atheris.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent.parent
CORPUS = TOP / "tests" / "fuzz" / "corpus" / "token.hex"
WORK = TOP / ".cache" / "fuzz" / "token"
MAX_INPUT = 600  # bytes: some forty steps of a meter
SLOW_INPUT_S = 10  # far above any input's time: more is a hang


def run_input(data: bytes) -> set[str]:
    """One input through the decoder or a meter; raises AssertionError where an invariant breaks."""
    from tests.fuzz.byte_reader import ByteReader
    from tests.fuzz.decode_harness import check_decode
    from tests.fuzz.meter_harness import check_meter

    reader = ByteReader(data)
    return (check_meter if reader.number(1) & 1 else check_decode)(reader)


def read_corpus() -> list[bytes]:
    return [bytes.fromhex(line) for line in CORPUS.read_text("ascii").split()] if CORPUS.exists() else []


def fuzz(seconds: int) -> None:
    """Never returns: libFuzzer ends the process, with 0 when the time is over and nothing was found."""
    import atheris

    with atheris.instrument_imports(include=["token_engine"]):
        import tests.fuzz.decode_harness
        import tests.fuzz.meter_harness  # noqa: F401
    WORK.mkdir(parents=True, exist_ok=True)
    for place, data in enumerate(read_corpus()):
        (WORK / f"kept-{place:04d}").write_bytes(data)
    options = [
        f"-max_total_time={seconds}",
        f"-max_len={MAX_INPUT}",
        f"-timeout={SLOW_INPUT_S}",
        "-len_control=10",
        "-print_final_stats=1",
    ]
    atheris.Setup([sys.argv[0], *options, f"-artifact_prefix={WORK.parent}/crash-", str(WORK)], fuzz_one)
    atheris.Fuzz()


def fuzz_one(data: bytes) -> None:
    run_input(data)


def keep() -> None:
    """Greedily choose the shortest inputs until every behaviour that any input shows is shown."""
    inputs = {path.read_bytes() for path in WORK.iterdir()} | set(read_corpus())
    shown: set[str] = set()
    kept = []
    for data in sorted(inputs, key=lambda one: (len(one), one)):
        behaviour = run_input(data)
        if not behaviour <= shown:
            shown |= behaviour
            kept.append(data)
    CORPUS.write_text("\n".join(data.hex() for data in kept) + "\n", "ascii")
    print(f"{len(kept)} of {len(inputs)} inputs show all {len(shown)} behaviours")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--keep", action="store_true", help="choose the corpus from what earlier runs found")
    arguments = parser.parse_args()
    keep() if arguments.keep else fuzz(arguments.seconds)
