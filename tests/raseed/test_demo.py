"""The demo's addresses: the pages stand where they were asked to, everything else on 127.0.0.1."""

import pytest

from raseed.demo import Demo


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8080"),
        ("127.0.0.2", "http://127.0.0.2:8080"),
        ("localhost", "http://localhost:8080"),
        ("::1", "http://[::1]:8080"),
    ],
)
def test_another_loopback_address_is_where_the_pages_are_looked_for(tmp_path, host, url):
    demo = Demo(tmp_path / "demo", port=None, host=host, speed=1.0, say=print)
    demo.ports = {"portal": 8080, "provider": 8090, "control": 8095, "postgres": 5432}
    demo.folder.prepare()
    demo._postgres = type("Postgres", (), {"connection_url": "postgresql://x"})()
    env = demo._environment("mqtt://127.0.0.1:1883")
    assert demo.url == env["RASEED_PUBLIC_URL"] == url
    assert env["RASEED_HOST"] == host
    provider = next(spec for spec in demo._edge_specs(env) if spec.name == "sandbox-provider")
    assert provider.env["RASEED_HOST"] == "127.0.0.1", "where its address says that it is"
