import pytest

from meter_gateway.bus.site_file import InvalidSite, parse_site

GOOD = """
site = "site-1"
[[bus]]
code = "tcp-1"
framer = "tcp"
address = "127.0.0.1:15020"
[[bus]]
code = "rtu-1"
framer = "rtu"
tty = "/dev/rtu-1"
baud = 9600
"""


def test_a_site_file():
    site = parse_site(GOOD)
    assert site.code == "site-1"
    assert (site.buses["tcp-1"].host, site.buses["tcp-1"].port) == ("127.0.0.1", 15020)
    assert site.buses["tcp-1"].silence_s == 0
    assert 0.00401 < site.buses["rtu-1"].silence_s < 0.00402
    assert (site.buses["rtu-1"].parity, site.buses["rtu-1"].stopbits) == ("none", 1)
    even = parse_site(GOOD.replace("baud = 9600", 'parity = "even"\nstopbits = 2')).buses["rtu-1"]
    assert (even.parity, even.stopbits, even.baud) == ("even", 2, 9600)
    assert parse_site(GOOD.replace("9600", "115200")).buses["rtu-1"].silence_s == 0.00175


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("site-1", "si/te"), "site ="),
        (("15020", "http"), "address"),
        (('"tcp"', '"telepathy"'), "framer"),
        (('code = "rtu-1"', 'code = "tcp-1"'), "twice"),
        (('tty = "/dev/rtu-1"', ""), "tty"),
        (("baud = 9600", "baud = 9"), "baud"),
        (("baud = 9600", 'timeout_s = "soon"'), "numbers"),
        (("[[bus]]", "[["), "TOML"),
        (("baud = 9600", 'parity = "mark"'), "parity"),
        (("baud = 9600", "stopbits = 3"), "stopbits"),
        (
            ('framer = "rtu"\ntty = "/dev/rtu-1"', 'framer = "rtu_over_tcp"\naddress="LocalHost:15020"'),
            "tcp-1 and rtu-1 share 127.0.0.1:15020, as tcp and as rtu_over_tcp",
        ),
        (
            ('framer = "rtu"\ntty = "/dev/rtu-1"', 'framer = "rtu_over_tcp"\naddress="127.0.0.1:15020"'),
            "share",
        ),
    ],
)
def test_a_wrong_site_file_says_where(change, says):
    with pytest.raises(InvalidSite, match=says):
        parse_site(GOOD.replace(*change))
