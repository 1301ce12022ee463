"""The site file is read as it is written, or refused with a reason."""

from pathlib import Path

import pytest

from firmware_sim.site_file import BusAddress, InvalidSite, read_site


def test_tcp_and_serial_buses(tmp_path):
    path = tmp_path / "site.toml"
    path.write_text(
        'site = "s"\n[[bus]]\ncode = "tcp-1"\nframer = "tcp"\naddress = "127.0.0.1:15020"\n'
        '[[bus]]\ncode = "rtu-1"\nframer = "rtu"\ntty = "/x/rtu-1"\nbaud = 19200\n'
    )
    assert read_site(path) == (
        BusAddress("tcp-1", "tcp", "127.0.0.1", 15020),
        BusAddress("rtu-1", "rtu", tty=Path("/x/rtu-1"), baud=19200),
    )


@pytest.mark.parametrize(
    "text",
    [
        "no toml",
        "bus = 5",
        '[[bus]]\ncode = "a"\nframer = "carrier pigeon"',
        '[[bus]]\ncode = "a"\nframer = "tcp"\naddress = "127.0.0.1"',
        '[[bus]]\ncode = "a"\nframer = "tcp"\naddress = "h:99999"',
        '[[bus]]\ncode = "a"\nframer = "rtu"',
        '[[bus]]\ncode = "a"\nframer = "rtu"\ntty = "/x"\nbaud = "fast"',
        '[[bus]]\ncode = "a"\nframer = "tcp"\naddress = "h:1"\n[[bus]]\ncode = "a"\nframer = "tcp"\naddress = "h:2"',
        '[[bus]]\ncode = "a"\nframer = "tcp"\naddress = "h:1"\n[[bus]]\ncode = "b"\nframer = "rtu_over_tcp"\naddress = "h:1"',
    ],
)
def test_others_are_refused(tmp_path, text):
    path = tmp_path / "site.toml"
    path.write_text(text)
    with pytest.raises(InvalidSite):
        read_site(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InvalidSite):
        read_site(tmp_path / "none.toml")
