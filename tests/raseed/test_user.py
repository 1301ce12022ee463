"""`raseed user`: a name is taken once, a short password is refused, and nothing is shown."""

import io
import threading

import psycopg

from raseed import cli


def run(argv):
    """In a thread of its own, since the command starts an event loop."""
    codes = []
    thread = threading.Thread(target=lambda: codes.append(cli.main(argv)))
    thread.start()
    thread.join()
    return codes[0]


def test_staff_are_added_once(database_url, monkeypatch, capsys):
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setattr("sys.stdin", io.StringIO("a long enough password\n"))
    assert run(["user", "layla", "--role", "agent", "--display-name", "Layla"]) == 0
    monkeypatch.setattr("sys.stdin", io.StringIO("a long enough password\n"))
    assert run(["user", "layla", "--role", "agent"]) == 1
    said = capsys.readouterr()
    assert "is taken" in said.err
    assert "a long enough password" not in said.out + said.err
    with psycopg.connect(database_url) as conn:
        rows = conn.execute(
            "SELECT username, role, password_hash FROM portal.login WHERE role <> 'subscriber'"
        ).fetchall()
    assert [(name, role) for name, role, _hash in rows] == [("layla", "agent")]
    assert rows[0][2].startswith("$argon2id$")


def test_a_short_password_is_refused_in_words(database_url, monkeypatch, capsys):
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setattr("sys.stdin", io.StringIO("short\n"))
    assert run(["user", "salim", "--role", "engineer"]) in (1, 2)
    assert "12" in capsys.readouterr().err
    with psycopg.connect(database_url) as conn:
        assert conn.execute("SELECT count(*) FROM portal.login").fetchone() == (0,)
