"""A session of a gateway begins with its birth, whatever waits on its disk and whenever the link is found up."""

import asyncio

import pytest

from meter_gateway.broker.mqtt_link import Connected
from meter_gateway.edge.outbox_store import OutboxStore
from meter_gateway.edge.site_settings import read_site_settings
from meter_gateway.edge.task_journal import TaskJournal
from meter_gateway.gateway import Gateway
from meter_gateway.message_key import to_millis
from meter_gateway.stop_signal import end_tasks
from meter_gateway.topics import Reading
from tests.meter_gateway.places import NOW
from tests.meter_gateway.roles import until

SITE = 'site = "site-1"\n[[bus]]\ncode = "b"\nframer = "tcp"\naddress = "127.0.0.1:1"\n'


class Link:
    """A link as the broker's thread leaves it: up at once, its news later."""

    connected = True
    session = 1

    def __init__(self):
        self.news = asyncio.Queue()
        self.said = []

    def publish(self, topic, _payload, **_):
        self.said.append(topic.rpartition("/")[2])
        return True

    async def next_event(self):
        return await self.news.get()


@pytest.fixture
async def link(tmp_path):
    (tmp_path / "site.toml").write_text(SITE)
    settings = read_site_settings(
        tmp_path / "site.toml", mqtt_url="mqtt://127.0.0.1:1", state_dir=str(tmp_path)
    )
    store = OutboxStore(
        tmp_path / "outbox.sqlite", first_boot=1, quota=settings.quota, max_bytes=settings.file_bytes
    )
    store.add([Reading("06000000029", "credit", to_millis(NOW), 5)], to_millis(NOW))
    journal = TaskJournal(tmp_path / "tasks.sqlite")
    gateway = Gateway(settings, store, journal=journal)
    made = gateway._link = Link()
    tasks = [asyncio.create_task(gateway._send()), asyncio.create_task(gateway._hear())]
    yield made
    await end_tasks(tasks)
    journal.close()
    store.close()


async def test_nothing_goes_before_the_birth(link):
    await asyncio.sleep(0.3)
    assert link.said == []
    link.news.put_nowait(Connected(1, session_present=True, session=1))

    async def speaks():
        return "data" in link.said

    await until(speaks)
    assert link.said[0] == "birth"


async def test_a_later_session_waits_for_its_own(link):
    link.news.put_nowait(Connected(1, session_present=True, session=1))

    async def speaks():
        return "data" in link.said

    await until(speaks)
    link.session = 2  # lost and back before anybody was told
    link.said.clear()
    link.news.put_nowait(Connected(1, session_present=True, session=1))  # news of the lost one
    await asyncio.sleep(0.3)
    assert "data" not in link.said
    link.said.clear()
    link.news.put_nowait(Connected(2, session_present=True, session=2))
    await until(speaks)
    assert link.said[0] == "birth"
