import pytest

from meter_gateway.profile import InvalidProfile, Read, load_profile, parse_profile, profile_names
from meter_gateway.registers import RegisterError

HEAD = 'name="t"\nversion=1\ntitle="T"\ncommodity="electricity"\n[poll]\nfast=["a"]\n[blocks.a.registers]\n'


def make(registers, head=HEAD):
    return parse_profile(head + registers)


@pytest.mark.parametrize("name", profile_names())
def test_every_profile_loads_and_serves_the_gateway(name):
    profile = load_profile(name)
    assert profile.name == name
    names = profile.names_of((*profile.fast, *profile.slow))
    for read in profile.plan(names):
        assert read.count <= profile.max_read
    assert {"serial", "token_count", "credit", "relay", "relay_reason", "last_tid"} <= set(names)
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


@pytest.mark.parametrize("name", profile_names())
def test_the_counter_comes_back_in_base_units(name):
    profile = load_profile(name)
    names = profile.names_of(profile.slow)
    words = profile.encode({"counter": 1_234_567_000})
    image = {(r.fc, a): 0 for r in profile.registers.values() for a in range(r.address, r.address + r.count)}
    image |= {(fc, address): word for address, word in words.items() for fc in (3, 4)}
    # A float meter shows seven digits and no more.
    assert abs(profile.decode(names, image)["counter"] - 1_234_567_000) < 200


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


def test_a_value_is_not_split_by_the_limit():
    text = "\n".join(f"r{i}={{address={4 * i},type='i64'}}" for i in range(8))
    profile = make(text, "max_read=10\n" + HEAD)
    assert profile.plan(profile.registers) == tuple(Read(3, 8 * i, 8) for i in range(4))


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


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x={address=0,type='u32'}\ny={address=1,type='u16'}", "overlap"),
        ("x={address=0,type='u24'}", "unknown type"),
        ("x={address=0,type='u32',order='ABDC'}", "word order"),
        ("x={address=0,type='u32',count=1}", "takes 2"),
        ("x={address=65535,type='u32'}", "address space"),
        ("x={fc=1,address=0,type='u16'}", "3 or 4"),
        ("x={address=0,type='u16',scale='0'}", "scale"),
        ("x={address=0,type='u16',scale='kWh'}", "t:"),
        ("x={address=0,type='ascii',count=126}", "never split"),
        ("x={address=0,type='u16',writable=true}", "write_fcs"),
        ("x={address=0,type='u16',choices='mood'}", "choices"),
        ("x={type='u16'}", "'address' is missing"),
        ("x=3", "t:"),
        ("x={address=0,type='u16'}\n[blocks.b.registers]\nx={address=9,type='u16'}", "twice"),
    ],
)
def test_a_wrong_profile_says_where(text, says):
    with pytest.raises(InvalidProfile, match=says):
        make(text)


@pytest.mark.parametrize(
    ("head", "says"),
    [
        ("pairs=[['x','y']]\n", "'y' that is not there"),
        ("max_read=126\n", "max_read"),
        ("write_fcs=[5]\n", "write_fcs"),
        ("extends='nothing'\n", "not there"),
        ("even_only=true\n", "even_only"),
        ("[sums]\nx=['x']\n", "sum x"),
    ],
)
def test_a_wrong_head_says_where(head, says):
    top, _, rest = HEAD.partition("[poll]")
    with pytest.raises(InvalidProfile, match=says):
        parse_profile(top + head + "[poll]" + rest + "x={address=0,type='u16'}")


def test_what_must_not_be_written_is_not():
    profile = load_profile("hiking-dds238")
    with pytest.raises(InvalidProfile, match="must not be written"):
        profile.encode_write({"counter": 0})
    with pytest.raises(InvalidProfile, match="join"):
        profile.encode_write({"token_submit_id": 1, "command_id": 1})


@pytest.mark.parametrize("name", ["nothing", "../profiles/raseed-prepaid-e1", ""])
def test_unknown_profiles_are_refused(name):
    with pytest.raises(InvalidProfile):
        load_profile(name)
