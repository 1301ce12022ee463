"""Reports of tasks among other records: each moves its task, what fits none is parked."""

from meter_gateway import site_task_store
from meter_gateway.order_site_task import order_task
from meter_gateway.store_batch import store_batch
from meter_gateway.topics import Birth, TaskReport, Uplink, encode, up_topic
from tests.meter_gateway.places import NOW, make_site


def uplink(seq, *records):
    message = Uplink("site-1", 1, seq, int(NOW.timestamp() * 1000), list(records))
    return up_topic("site-1", Uplink), encode(message)


async def test_reports_are_stored_once_and_in_order(conn):
    await make_site(conn)
    task = await order_task(
        conn,
        site="site-1",
        bus="tcp-1",
        kind="probe",
        argument={"unit": 3},
        idempotency_key="k",
        requested_by="salma",
        now=NOW,
    )
    born = up_topic("site-1", Birth), encode(Birth("site-1", "gateway", 1, 1, 0))
    done = uplink(2, TaskReport(task.id, "DONE", 9, 100, {"likely": "x"}))
    running = uplink(1, TaskReport(task.id, "RUNNING", 5, 50))
    stranger = uplink(3, TaskReport(999, "DONE", 9, 100))
    stored = await store_batch(conn, [born, done, running, stranger], NOW)
    assert set(stored.receipts) == {("site-1", 1, seq) for seq in (1, 2, 3)}
    await store_batch(conn, [done, uplink(4, TaskReport(task.id, "FAILED", 9, 0, {"reason": "x"}))], NOW)
    found = await site_task_store.find_task(conn, task.id)
    assert (found.state, found.progress, found.result) == ("DONE", 100, {"likely": "x"})
    parked = await (await conn.execute("SELECT reason FROM meter_gateway.dead_letter")).fetchall()
    assert parked == [("no task 999",)]
