"""Profiles of the package, what a wrong one is told, decode vectors, and the planner's promises."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meter_gateway.profile import (
    InvalidProfile,
    Read,
    load_profile,
    parse_profile,
    profile_names,
    read_profile,
)
from meter_gateway.profile_check import faults_of
from meter_gateway.registers import RegisterError

HEAD = 'name="t"\nversion=1\ntitle="T"\ncommodity="electricity"\n[poll]\nfast=["a"]\n[blocks.a.registers]\n'
COUNTER = "\ncounter={address=1000,type='u32'}"
VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "registers.json").read_text())
PREPAID = [name for name in profile_names() if load_profile(name).kind == "prepaid"]
PLAIN = [name for name in profile_names() if load_profile(name).kind == "meter"]


def make(registers, head=HEAD):
    return parse_profile(head + registers + COUNTER)


@pytest.mark.parametrize("name", profile_names())
def test_every_profile_loads_and_can_be_polled(name):
    profile = load_profile(name)
    assert profile.name == name
    assert profile.source
    names = profile.names_of((*profile.fast, *profile.slow))
    for read in profile.plan(names):
        assert read.count <= profile.max_read
    assert {"counter", "load"} & {*names, *profile.sums}


def test_there_are_enough_meters_of_each_kind():
    electricity = [name for name in PLAIN if load_profile(name).commodity == "electricity"]
    water = [name for name in PLAIN if load_profile(name).commodity == "water"]
    assert len(electricity) >= 8
    assert len(water) >= 3
    assert {"raseed-prepaid-e1", "raseed-prepaid-w1"} <= set(PREPAID)


@pytest.mark.parametrize("name", PREPAID)
def test_a_prepaid_profile_serves_orders_and_tokens(name):
    profile = load_profile(name)
    assert profile.has("counter")
    written = {"token": "12345678901234567890", "token_submit_id": 2**63}
    address, words = profile.encode_write(written)
    assert (address, len(words)) == (0x1050, 9)
    image = {(3, address + i): word for i, word in enumerate(words)}
    assert profile.decode(written, image) == written
    order = {
        "command_id": 5,
        "command_opcode": "relay_open",
        "command_argument": -1,
        "arm_key": 1,
        "arm_complement": 2,
    }
    assert profile.encode_write(order)[0] == 0x1030


@pytest.mark.parametrize("name", [name for name in profile_names() if load_profile(name).has("counter")])
def test_the_counter_comes_back_in_base_units(name):
    profile = load_profile(name)
    counter = profile.sums.get("counter", ("counter",))
    words = profile.encode({"counter": 1_234_567_000})
    for scaler in profile.scalers:
        register = profile.registers[scaler]
        words |= dict(enumerate(register.neutral_words(), register.address))
    image = {(fc, address): word for address, word in words.items() for fc in (3, 4)}
    # A float meter shows seven digits and no more.
    assert abs(profile.decode(counter, image)["counter"] - 1_234_567_000) < 200


@pytest.mark.parametrize("vector", VECTORS, ids=lambda one: f"{one['profile']}: {one['note']}")
def test_known_words_are_known_values(vector):
    profile = load_profile(vector["profile"])
    image = {}
    for place, words in vector["words"].items():
        fc, _, address = place.partition(":")
        image |= {(int(fc), int(address, 0) + n): int(word, 16) for n, word in enumerate(words.split())}
    names = [name for wanted in vector["values"] for name in profile.sums.get(wanted, (wanted,))]
    values = profile.decode(names, image)
    assert {name: values[name] for name in vector["values"]} == vector["values"]


def test_every_profile_has_a_vector():
    assert {vector["profile"] for vector in VECTORS} >= set(PLAIN) | {
        "raseed-prepaid-e1",
        "raseed-prepaid-w1",
    }


def test_low_word_first_is_data():
    profile = load_profile("carlo-gavazzi-em340")
    assert profile.encode({"counter": 0x0001_0002 * 100}) == {0x34: 0x0002, 0x35: 0x0001}


def test_a_sum_is_read_in_one_request_or_not_at_all():
    profile = load_profile("dynaflox-ultrad")
    assert profile.plan(["counter_rest"]) == (Read(3, 2, 4),)
    assert profile.encode({"counter": 7_000_001}) == {2: 0, 3: 7, 4: 0, 5: 1}


def test_near_registers_are_merged_and_far_ones_are_not():
    near = "x={address=0,type='u32'}\ny={address=18,type='u16'}\nz={address=60,type='u16'}"
    assert make(near).plan(["z", "y", "x"]) == (Read(3, 0, 19), Read(3, 60, 1))
    other = make(near.replace("z={address=60", "z={fc=4,address=19"))
    assert other.plan(["x", "y", "z"]) == (Read(3, 0, 19), Read(4, 19, 1))


def test_a_hole_that_answers_with_an_exception_is_not_read_across():
    profile = make("x={address=0,type='u16'}\ny={address=3,type='u16'}", "holes=[[2,2]]\n" + HEAD)
    assert profile.plan(["x", "y"]) == (Read(3, 0, 1), Read(3, 3, 1))


def test_a_value_is_not_split_by_the_limit():
    text = "\n".join(f"r{i}={{address={4 * i},type='i64'}}" for i in range(8))
    profile = make(text, "max_read=10\n" + HEAD)
    names = [name for name in profile.registers if name != "counter"]
    assert profile.plan(names) == tuple(Read(3, 8 * i, 8) for i in range(4))


def test_even_only_widens():
    profile = make("x={address=2,type='u32'}", "even_only=true\n" + HEAD)
    assert profile.plan(["x"]) == (Read(3, 2, 2),)


def test_sentinels_and_choices():
    profile = make("x={address=0,type='i32',scale='0.1',sentinels=['2147483647']}")
    assert profile.decode(["x"], {(3, 0): 0x7FFF, (3, 1): 0xFFFF}) == {"x": None}
    assert profile.decode(["x"], {(3, 0): 0, (3, 1): 125}) == {"x": 12}
    e1 = load_profile("raseed-prepaid-e1")
    reason = e1.registers["relay_reason"]
    assert reason.decode(reason.encode("tamper")) == "tamper"
    with pytest.raises(RegisterError):
        reason.decode([99])
    with pytest.raises(RegisterError):
        reason.encode("mood")
    with pytest.raises(RegisterError):
        e1.decode(["relay"], {})


UNITS = (
    HEAD.replace("[poll]", "[factors.unit]\n0='1000'\n1='1000000'\n[poll]")
    + "unit={address=9,type='u16',factors='unit'}\nvolume={address=0,type='u32',scaled_by=['unit']}"
)


def test_a_unit_register_selects_the_scale_and_comes_with_every_read_of_it():
    profile = make(UNITS, "")
    assert profile.plan(["volume"]) == (Read(3, 0, 10),)
    for code, value in ((0, 7_000), (1, 7_000_000)):
        assert profile.decode(["volume"], {(3, 0): 0, (3, 1): 7, (3, 9): code}) == {"volume": value}
    with pytest.raises(RegisterError, match="does not know"):
        profile.decode(["volume"], {(3, 0): 0, (3, 1): 7, (3, 9): 2})


def test_a_transformer_ratio_that_nobody_set_is_no_value():
    profile = load_profile("chint-dtsu666")
    image = {(3, 6): 0, (3, 7): 10, (3, 0x101E): 0x3F80, (3, 0x101F): 0}
    with pytest.raises(RegisterError, match="no ratio"):
        profile.decode(["counter"], image)


@pytest.mark.parametrize(
    ("text", "says", "place"),
    [
        ("x={address=0,type='u32'}\ny={address=1,type='u16'}", "overlap", "y"),
        ("x={address=0,type='u24'}", "unknown type", "type"),
        ("x={address=0,type='u32',order='ABDC'}", "word order", "order"),
        ("x={address=0,type='u32',count=1}", "takes 2", "count"),
        ("x={address=65535,type='u32'}", "address space", "address"),
        ("x={fc=1,address=0,type='u16'}", "3 or 4", "fc"),
        ("x={address=0,type='u16',scale='0'}", "scale", "scale"),
        ("x={address=0,type='u16',scale='kWh'}", "t:", "x"),
        ("x={address=0,type='ascii',count=126}", "never split", "count"),
        ("x={address=0,type='u16',writable=true}", "write_fcs", "writable"),
        ("x={address=0,type='u16',choices='mood'}", "choices", "choices"),
        ("x={address=0,type='u16',factors='mood'}", "factors", "factors"),
        ("x={address=0,type='u16',scaled_by=['mood']}", "scaled by 'mood'", "scaled_by"),
        ("x={address=0,type='u16',sacle='1'}", "'sacle' means nothing", "sacle"),
        ("x={type='u16'}", "'address' is missing", "x"),
        ("x=3", "t:", "x"),
        ("x={address=0,type='u16'}\n[blocks.b.registers]\nx={address=9,type='u16'}", "twice", "x"),
    ],
)
def test_a_wrong_register_says_where_and_what_to_do(text, says, place):
    with pytest.raises(InvalidProfile, match=says) as caught:
        make(text)
    assert place in caught.value.key
    assert caught.value.hint


@pytest.mark.parametrize(
    ("head", "says"),
    [
        ("pairs=[['x','y']]\n", "'y' that is not there"),
        ("max_read=126\n", "max_read"),
        ("merge_gap=65\n", "merge_gap"),
        ("write_fcs=[5]\n", "write_fcs"),
        ("extends='nothing'\n", "not there"),
        ("extends='eastron-sdm120-prepaid'\n", "itself extends"),
        ("even_only=true\n", "even_only"),
        ("holes=[[0,0]]\n", "hole"),
        ("holes=[[5,1]]\n", "hole"),
        ("settle_s=3600\n", "settle_s"),
        ("remote_close='always'\n", "remote_close"),
        ("freeze_minutes=[60]\n", "minutes of the hour"),
        ("kind='prepaid'\n", "lacks serial"),
        ("kind='pump'\n", "neither prepaid nor meter"),
        ("colour='red'\n", "'colour' means nothing"),
        ("[sums]\nx=['x']\n", "sum x"),
    ],
)
def test_a_wrong_head_says_where(head, says):
    top, _, rest = HEAD.partition("[poll]")
    with pytest.raises(InvalidProfile, match=says):
        parse_profile(top + head + "[poll]" + rest + "x={address=0,type='u16'}" + COUNTER)


def test_all_faults_are_told_at_once():
    profile = read_profile(HEAD + "x={address=0,type='u32',scale='-1'}\ny={address=1,fc=9,type='u16'}")
    assert len(list(faults_of(profile))) == 3


def test_what_must_not_be_written_is_not():
    profile = load_profile("hiking-dds238")
    with pytest.raises(InvalidProfile, match="must not be written"):
        profile.encode_write({"total": 0})
    assert profile.encode_write({"relay": 1}) == (0x001A, [1])
    with pytest.raises(InvalidProfile, match="join"):
        load_profile("raseed-prepaid-e1").encode_write({"token_submit_id": 1, "command_id": 1})


def test_a_profile_over_two_others_keeps_the_strictest_limit():
    profile = load_profile("dynaflox-ultrad-prepaid")
    assert (profile.max_read, profile.kind) == (22, "prepaid")
    assert profile.sums["counter"] == ("counter_m3", "counter_rest")
    assert profile.remote_close == "ready"


@pytest.mark.parametrize("name", ["nothing", "../profiles/raseed-prepaid-e1", ""])
def test_unknown_profiles_are_refused(name):
    with pytest.raises(InvalidProfile):
        load_profile(name)


@st.composite
def maps(draw):
    """A profile of random registers, holes and pairs, and names to read."""
    even = draw(st.booleans())
    address, lines, pairs = 0, [], []
    count = draw(st.integers(1, 30))
    for number in range(count):
        address += draw(st.integers(0, 30)) * (2 if even else 1)
        type_ = draw(st.sampled_from(["u32", "i64"] if even else ["u16", "u32", "i64"]))
        lines.append(f"r{number}={{address={address},type='{type_}',fc={draw(st.sampled_from([3, 4]))}}}")
        address += {"u16": 1, "u32": 2, "i64": 4}[type_]
        if number and draw(st.integers(0, 5)) == 0:
            pairs.append([f"r{number - 1}", f"r{number}"])
    head = f"max_read={draw(st.integers(4, 125))}\nmerge_gap={draw(st.integers(0, 64))}\neven_only={str(even).lower()}\n"
    hole = draw(st.integers(0, address))
    head += f"holes=[[{hole},{hole}]]\npairs={pairs}\n"
    text = head + HEAD + "\n".join(lines) + "\ncounter={address=60000,type='u32'}"
    names = draw(st.lists(st.sampled_from([f"r{number}" for number in range(count)]), min_size=1))
    return text, names


def _pair_spans(profile, fc):
    for pair in profile.pairs:
        members = [profile.registers[name] for name in pair]
        if members[0].fc == fc:
            yield min(r.address for r in members), max(r.address for r in members)


@given(maps())
@settings(max_examples=150, deadline=None)
def test_a_plan_keeps_every_promise(made):
    text, names = made
    profile = read_profile(text)
    if any(True for _ in faults_of(profile)):
        return  # a hole under a register, a pair over the limit: refused before any plan
    reads = profile.plan(names)
    spans = [(read.fc, read.address, read.address + read.count) for read in reads]
    for fc, start, end in spans:
        assert 0 < end - start <= profile.max_read, "never over the limit"
        assert not profile.even_only or start % 2 == end % 2 == 0, "even start, even count"
        assert not any(start <= first < end for first, _ in profile.holes), "never across a hole"
        taken = sorted(
            (one.address, one.address + one.count)
            for one in profile.registers.values()
            if one.fc == fc and start <= one.address < end
        )
        reached = start
        for begin, stop in taken:
            inside = any(
                first < begin <= last and first < reached for first, last in _pair_spans(profile, fc)
            )
            assert inside or begin - reached <= profile.merge_gap, "never across a wider gap"
            reached = max(reached, stop)
    partners = {name: pair for pair in profile.pairs for name in pair}
    for name in names:
        together = [profile.registers[one] for one in partners.get(name, (name,))]
        first, last = min(r.address for r in together), max(r.address + r.count for r in together)
        assert any(fc == together[0].fc and start <= first and last <= end for fc, start, end in spans), name


def test_a_value_without_meaning_costs_the_others_nothing():
    chint = load_profile("chint-dtsu666")
    image = {(one.fc, one.address + n): 0 for one in chint.registers.values() for n in range(one.count)}
    image[3, 0x2044], image[3, 0x2045] = 0x459C, 0x4000  # 5000.0
    values, faults = chint.decode_known(("counter", "frequency"), image)
    assert values == {"counter": None, "frequency": 50_000}
    assert list(faults) == ["counter"]
    assert "no ratio" in faults["counter"]
    with pytest.raises(RegisterError):
        chint.decode(("counter",), image)


@pytest.mark.parametrize("name", profile_names())
def test_a_counter_is_known_with_all_that_it_is_made_of(name):
    profile = load_profile(name)
    beside = profile.names_beside("counter")
    wanted = profile.sums.get("counter", ("counter",)) if profile.has("counter") else ()
    assert set(wanted) <= set(beside)
    assert bool(profile.plan(beside)) is profile.has("counter")
    assert profile.names_beside("nothing") == ()
