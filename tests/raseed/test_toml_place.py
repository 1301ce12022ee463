import pytest

from raseed.toml_place import find_line

TEXT = """name = "x"
[poll]
fast = ["a"]
[blocks.a]
type = "u16"
[blocks.a.registers]
x = { address = 0 }
"y" = { address = 1 }
[blocks.b.registers.z]
address = 4
"""


@pytest.mark.parametrize(
    ("key", "line"),
    [
        (("name",), 1),
        (("poll", "fast"), 3),
        (("blocks", "a", "registers", "x", "address"), 7),
        (("blocks", "a", "registers", "y"), 8),
        (("blocks", "b", "registers", "z", "address"), 10),
        (("blocks", "b", "registers", "z", "type"), 9),
        (("blocks", "a", "type"), 5),
        (("nowhere",), None),
        ((), None),
    ],
)
def test_a_key_has_a_line(key, line):
    assert find_line(TEXT, key) == line
