"""Numbers of meters, groups and times: each rule refuses what breaks it, by name."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from token_engine.errors import InvalidIdentity, InvalidTid
from token_engine.identifiers import (
    MAX_TID,
    BaseDate,
    Drn,
    EncryptionAlgorithm,
    Iin,
    KeyGeneration,
    KeyType,
    MeterPan,
    SupplyGroup,
    check_key_expiry,
    check_key_revision,
    check_tariff_index,
    check_tid,
    following_key_revision,
    is_reserved_tid,
    key_expired,
    luhn_digit,
    luhn_valid,
    next_tid,
    rnd_at,
)


@pytest.mark.parametrize(
    ("digits", "check"),
    [
        ("60072700000000000", "9"),
        ("00000100000000008", "2"),
        ("60072711111111115", "3"),
        ("1111111111", "5"),
        ("1234567890", "3"),
    ],
)
def test_luhn_digit_of_published_numbers(digits, check):
    assert luhn_digit(digits) == check
    assert luhn_valid(digits + check)


@given(st.text("0123456789", min_size=1, max_size=18), st.data())
@settings(max_examples=60)
def test_luhn_sees_every_single_wrong_digit(body, data):
    good = body + luhn_digit(body)
    place = data.draw(st.integers(0, len(good) - 1))
    other = data.draw(st.sampled_from([d for d in "0123456789" if d != good[place]]))
    assert not luhn_valid(good[:place] + other + good[place + 1 :])


@pytest.mark.parametrize("text", ["", "7", "12a4", "١٢٣٤"])
def test_luhn_valid_is_false_for_what_is_no_number(text):
    assert not luhn_valid(text)


def test_luhn_digit_refuses_letters():
    with pytest.raises(InvalidIdentity) as refusal:
        luhn_digit("12x")
    assert refusal.value.rule == "luhn_digits"


@pytest.mark.parametrize(
    ("make", "text", "rule"),
    [
        (Drn, "12345678904", "drn_check_digit"),
        (Drn, "11111111113", "drn_check_digit"),
        (Drn, "1234567890", "drn_length"),
        (Drn, "1234567890x", "drn_length"),
        (Iin, "60072", "iin_length"),
        (Iin, "6007", "iin_value"),
        (MeterPan, "600727000000000008", "pan_check_digit"),
        (MeterPan, "60072700000000000", "pan_length"),
        (SupplyGroup, "12345", "sgc_length"),
        (SupplyGroup, "12345a", "sgc_length"),
    ],
)
def test_wrong_numbers_are_refused_by_the_rule_they_break(make, text, rule):
    with pytest.raises(InvalidIdentity) as refusal:
        make(text)
    assert refusal.value.rule == rule
    assert refusal.value.code == "invalid_identity"


def test_pan_needs_a_good_meter_number_inside():
    body = "600727" + "12345678904"
    with pytest.raises(InvalidIdentity) as refusal:
        MeterPan(body + luhn_digit(body))
    assert refusal.value.rule == "drn_check_digit"


def test_pan_of_both_forms_comes_apart_again():
    short = MeterPan.of("600727", "12345678903")
    assert (short.iin, short.drn, short.drn.manufacturer) == ("600727", "12345678903", "12")
    long = MeterPan.of("0000", "0100000000008")
    assert long == "000001000000000082"
    assert (long.iin, long.drn, long.drn.manufacturer) == ("0000", "0100000000008", "0100")


@pytest.mark.parametrize(("iin", "drn"), [("600727", "0100000000008"), ("0000", "12345678903")])
def test_pan_parts_must_fit_each_other(iin, drn):
    with pytest.raises(InvalidIdentity) as refusal:
        MeterPan.of(iin, drn)
    assert refusal.value.rule == "pan_parts"


@pytest.mark.parametrize(
    ("check", "good", "bad", "rule"),
    [
        (check_tariff_index, [0, 99], [-1, 100], "ti_range"),
        (check_key_revision, [1, 9], [0, 10], "krn_range"),
        (check_key_expiry, [0, 255], [-1, 256], "ken_range"),
    ],
)
def test_ranges(check, good, bad, rule):
    assert [check(value) for value in good] == good
    for value in bad:
        with pytest.raises(InvalidIdentity) as refusal:
            check(value)
        assert refusal.value.rule == rule


def test_key_revision_goes_round():
    assert [following_key_revision(krn) for krn in (1, 8, 9)] == [2, 9, 1]


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"pan": "600727000000000008"}, "pan_check_digit"),
        ({"sgc": "1"}, "sgc_length"),
        ({"ti": 100}, "ti_range"),
        ({"krn": 0}, "krn_range"),
        ({"ken": 256}, "ken_range"),
        ({"kt": 4}, "kt_value"),
        ({"ea": 8}, "ea_value"),
        ({"ea": 9}, "ea_withdrawn"),
        ({"dkga": 5}, "dkga_value"),
        ({"base_date": "99"}, "base_date_value"),
        ({"ea": 11, "dkga": 2}, "ea_dkga"),
    ],
)
def test_identity_refuses_each_wrong_field(meter, change, rule):
    with pytest.raises(InvalidIdentity) as refusal:
        replace(meter, **change)
    assert refusal.value.rule == rule


def test_identity_takes_the_plain_values_of_a_database_row(meter):
    plain = replace(meter, kt=2, ea=7, dkga=4, base_date="14")
    assert plain == meter
    assert (plain.kt, plain.ea, plain.dkga) == (KeyType.DUTK, EncryptionAlgorithm.STA, KeyGeneration.DKGA04)
    assert isinstance(plain.base_date, BaseDate)
    assert plain.drn == "00000000000"


@pytest.mark.parametrize(
    ("base", "last"),
    [
        (BaseDate.Y1993, datetime(2024, 11, 24, 20, 15, tzinfo=UTC)),
        (BaseDate.Y2014, datetime(2045, 11, 24, 20, 15, tzinfo=UTC)),
        (BaseDate.Y2035, datetime(2066, 11, 24, 20, 15, tzinfo=UTC)),
    ],
)
def test_last_minute_of_each_base_date(base, last):
    assert base.last_instant == last
    assert base.tid_at(last + timedelta(seconds=59)) == MAX_TID
    with pytest.raises(InvalidTid):
        base.tid_at(last + timedelta(minutes=1))
    with pytest.raises(InvalidTid):
        base.tid_at(base.instant - timedelta(seconds=1))


@pytest.mark.parametrize(
    ("base", "instant", "tid"),
    [
        (BaseDate.Y1993, datetime(2004, 3, 1, 13, 55, tzinfo=UTC), 5871715),
        (BaseDate.Y1993, datetime(1996, 3, 25, 13, 55, tzinfo=UTC), 1698595),
        (BaseDate.Y2014, datetime(2014, 3, 1, 13, 0, tzinfo=UTC), 85740),
    ],
)
def test_tid_of_published_times(base, instant, tid):
    assert base.tid_at(instant) == tid
    assert base.instant_of(tid) == instant


def test_tid_counts_in_utc_unless_the_group_says_otherwise():
    muscat = timezone(timedelta(hours=4))
    noon = datetime(2026, 1, 1, 12, 0, tzinfo=muscat)
    base = BaseDate.Y2014
    assert base.tid_at(noon) == base.tid_at(datetime(2026, 1, 1, 8, 0, tzinfo=UTC))
    local = base.tid_at(noon, timedelta(hours=4))
    assert local == base.tid_at(noon) + 240
    assert base.instant_of(local, timedelta(hours=4)) == noon


def test_naive_times_are_refused():
    naive = datetime(2026, 1, 1)
    with pytest.raises(InvalidTid):
        BaseDate.Y2014.tid_at(naive)
    with pytest.raises(InvalidTid):
        rnd_at(naive)


@pytest.mark.parametrize("tid", [-1, MAX_TID + 1])
def test_tid_has_24_bits(tid):
    with pytest.raises(InvalidTid):
        check_tid(tid)
    with pytest.raises(InvalidTid):
        BaseDate.Y2014.instant_of(tid)


def test_the_base_dates_follow_each_other():
    assert BaseDate.Y1993.following is BaseDate.Y2014
    assert BaseDate.Y2014.following is BaseDate.Y2035
    assert BaseDate.Y2035.following is None


@pytest.mark.parametrize(
    ("minute", "last", "expected"),
    [
        ("00:00", None, "00:00"),  # CTSA09
        ("00:01", None, "00:02"),
        ("00:03", None, "00:03"),
        ("00:00", "00:00", "00:02"),  # the next one would be the reserved minute
        ("10:00", "10:00", "10:01"),
        ("10:00", "10:05", "10:06"),  # a clock that went back
        ("10:07", "10:05", "10:07"),
    ],
)
def test_next_tid(minute, last, expected):
    def at(text):
        hour, minutes = map(int, text.split(":"))
        return datetime(2026, 5, 4, hour, minutes, 30, tzinfo=UTC)

    base = BaseDate.Y2014
    got = next_tid(base, at(minute), None if last is None else base.tid_at(at(last)))
    assert got == base.tid_at(at(expected))


@given(st.lists(st.integers(-5, 200), min_size=1, max_size=40), st.integers(0, 5000))
@settings(max_examples=40)
def test_tids_of_a_meter_only_grow_and_never_take_the_reserved_minute(steps, first):
    now, last = BaseDate.Y2014.instant + timedelta(minutes=first + 200), None
    for step in steps:
        now += timedelta(minutes=max(step, -5))
        tid = next_tid(BaseDate.Y2014, now, last)
        assert last is None or tid > last
        assert not is_reserved_tid(tid)
        last = tid


def test_next_tid_ends_with_the_base_date():
    end = BaseDate.Y2014.last_instant
    assert next_tid(BaseDate.Y2014, end, MAX_TID - 1) == MAX_TID
    with pytest.raises(InvalidTid):
        next_tid(BaseDate.Y2014, end, MAX_TID)
    with pytest.raises(InvalidTid):
        next_tid(BaseDate.Y2014, end + timedelta(minutes=1), None)
    with pytest.raises(InvalidTid):
        next_tid(BaseDate.Y2014, end, MAX_TID + 1)


def test_key_expiry_counts_in_units_of_65536_minutes():
    assert not key_expired(5 * 65536 + 65535, 5)
    assert key_expired(6 * 65536, 5)
    assert not key_expired(MAX_TID, 255)


def test_rnd_is_the_low_bits_of_milliseconds():
    start = datetime(2026, 1, 1, tzinfo=UTC)
    seen = [rnd_at(start + timedelta(milliseconds=step)) for step in range(32)]
    assert seen[:16] == seen[16:]
    assert sorted(seen[:16]) == list(range(16))
