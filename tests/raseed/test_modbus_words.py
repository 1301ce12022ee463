import pytest

from raseed.modbus_words import InvalidWords, Words, read_frames, read_words, split_place

ANSWER = "01 04 04 43 66 33 34 1B 38"  # Eastron's own example: 230.2 V
QUESTION = "01 04 00 00 00 02 71 CB"


@pytest.mark.parametrize(
    ("given", "at", "all_hex"),
    [
        (["0x4366", "0x3334"], "4:0", False),
        (["17254", "13108"], "4:0x0000", False),
        (["4366", "3334"], "4:0", True),
    ],
)
def test_words_are_read_as_people_write_them(given, at, all_hex):
    assert read_words(given, at, all_hex=all_hex) == Words(4, 0, (0x4366, 0x3334))


@pytest.mark.parametrize(
    ("given", "at", "says"),
    [
        (["1"], None, "FC:ADDRESS"),
        (["1"], "5:0", "function code is 3 or 4"),
        (["1"], "3:70000", "no place"),
        (["70000"], "3:0", "no 16-bit word"),
        (["4366x"], "3:0", "no number"),
        (["FF"], "3:0", "--hex"),
        ([], "3:0", "not 0"),
        (["1"] * 126, "3:0", "not 126"),
        (["١"], "3:0", "no number"),
    ],
)
def test_what_is_no_word_is_told(given, at, says):
    with pytest.raises(InvalidWords, match=says):
        read_words(given, at)


def test_the_place_stands_before_the_words():
    assert split_place(["3:0x10", "1"]) == ("3:0x10", ["1"])
    assert split_place(["01:04:04", "1"]) == (None, ["01:04:04", "1"])
    assert split_place([]) == (None, [])


@pytest.mark.parametrize(
    ("given", "at"),
    [(ANSWER.split(), "4:0"), ([ANSWER.replace(" ", "")], "4:0"), (f"{QUESTION} {ANSWER}".split(), None)],
)
def test_a_frame_is_checked_and_opened(given, at):
    assert read_frames(given, at) == Words(4, 0, (0x4366, 0x3334), 1)


@pytest.mark.parametrize(
    ("frame", "at", "says"),
    [
        (ANSWER.replace("1B", "1C"), "4:0", "1B 38 would"),
        ("01 84 02 C2 C1", "4:0", "exception 2: illegal address"),
        ("01 04 04 43", "4:0", "checksum"),
        ("01 0", "4:0", "bytes in hexadecimal"),
        ("zz", "4:0", "bytes in hexadecimal"),
        (ANSWER, None, "FC:ADDRESS"),
        (ANSWER, "3:0", "answers function 4"),
        (f"01 04 00 00 00 01 31 CA {ANSWER}", None, "not to this question"),
    ],
)
def test_a_frame_that_is_wrong_says_how(frame, at, says):
    with pytest.raises(InvalidWords, match=says):
        read_frames(frame.split(), at)
