"""`raseed user`: a name is taken once, a login ends with its sessions, and no password is shown."""

import io
import threading

import psycopg
import pytest

from portal.sign_in import _hasher
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
    assert run(["user", "salim", "--role", "engineer"]) == 1
    assert "12" in capsys.readouterr().err
    with psycopg.connect(database_url) as conn:
        assert conn.execute("SELECT count(*) FROM portal.login").fetchone() == (0,)


OLD, NEW = "a long enough password", "another password, as long"


@pytest.fixture
def user(database_url, monkeypatch, capsys):
    """Type `raseed user` with one line of standard input; gives the code and both outputs."""
    monkeypatch.setenv("DATABASE_URL", database_url)

    def typed(*argv, line=""):
        monkeypatch.setattr("sys.stdin", io.StringIO(f"{line}\n"))
        code = run(["user", *argv])
        said = capsys.readouterr()
        assert not line or line not in said.out + said.err
        return code, said.out, said.err

    return typed


@pytest.fixture
def two_people(database_url, user):
    """Layla and Salim, each signed in once."""
    for name in ("layla", "salim"):
        assert user(name, "--role", "agent", line=OLD)[0] == 0
    with psycopg.connect(database_url) as conn:
        conn.execute(
            "INSERT INTO portal.session (id_hash, login_id, csrf_token, expires_at)"
            " SELECT username::bytea, id, 'c', now() + interval '1 hour' FROM portal.login"
        )


def logins(database_url):
    """Of each name: disabled or not, its password's hash, its sessions."""
    with psycopg.connect(database_url) as conn:
        rows = conn.execute(
            "SELECT username, disabled_at, password_hash,"
            " (SELECT count(*) FROM portal.session s WHERE s.login_id = l.id) FROM portal.login l"
        ).fetchall()
    return {name: rest for name, *rest in rows}


def test_a_login_is_ended_with_its_sessions_and_once(database_url, user, two_people):
    code, out, _ = user("Layla", "--disable")
    assert (code, "1 sessions ended" in out) == (0, True)
    after = logins(database_url)
    assert after["layla"][0] is not None
    assert after["layla"][2] == 0
    assert after["salim"][0] is None
    assert after["salim"][2] == 1
    assert user("layla", "--disable")[0] == 0
    assert logins(database_url)["layla"] == after["layla"]
    code, _, err = user("layla", "--password", line=NEW)
    assert (code, "no member of staff" in err) == (1, True)
    assert logins(database_url) == after


def test_a_new_password_ends_the_sessions(database_url, user, two_people):
    assert user("layla", "--password", line=NEW)[0] == 0
    after = logins(database_url)
    assert after["layla"][2] == 0
    assert after["salim"][2] == 1
    assert _hasher.verify(after["layla"][1], NEW)
    assert _hasher.verify(after["salim"][1], OLD)


def test_what_cannot_be_changes_nothing(database_url, user, two_people):
    before = logins(database_url)
    for argv, line, word in (
        (("nobody", "--disable"), "", "no member of staff"),
        (("nobody", "--password"), NEW, "no member of staff"),
        (("layla", "--password"), "short", "12"),
        (("no name", "--role", "agent"), NEW, "user name"),
    ):
        code, _, err = user(*argv, line=line)
        assert (code, word in err, "nothing was changed" in err) == (1, True, True)
    assert logins(database_url) == before


@pytest.mark.parametrize("argv", [("layla",), ("layla", "--disable", "--password"), ("layla", "--role", "x")])
def test_one_thing_is_asked_for(argv, user):
    with pytest.raises(SystemExit) as ended:
        cli.main(["user", *argv])
    assert ended.value.code == 2
