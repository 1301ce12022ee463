"""Working on a ticket: who was told what, which clock stopped, and what a late word of the customer does."""

from __future__ import annotations

from datetime import timedelta

import pytest

from portal.contact_centre import answer_ticket, attachment_store, clock_store, ticket_store
from portal.contact_centre.clock import ClockKind
from portal.contact_centre.ticket import TicketKind, TicketRefused, TicketState
from tests.portal.contact_centre.test_open_ticket import messages, opened
from tests.portal.small_town import NOW, build, languages

HOUR = timedelta(hours=1)
PNG = b"\x89PNG\r\n\x1a\n" + bytes(40)


class Desk:
    """One ticket and the people around it."""

    def __init__(self, conn, town, ticket, agent):
        self.conn, self.town, self.ticket_id, self.agent = conn, town, ticket.id, agent

    async def ticket(self):
        return await ticket_store.get_ticket(self.conn, self.ticket_id)

    async def clocks(self):
        return {clock.kind: clock for clock in await clock_store.list_clocks(self.conn, self.ticket_id)}

    async def kinds(self, *, public_only=False):
        entries = await ticket_store.list_entries(self.conn, self.ticket_id, public_only=public_only)
        return [entry.kind for entry in entries]

    async def reply(self, text="We look into it.", at=NOW + HOUR, asks=False):
        await answer_ticket.reply(
            self.conn,
            ticket_id=self.ticket_id,
            text=text,
            asks=asks,
            actor_id=self.agent,
            now=at,
            languages=languages(),
        )

    async def resolve(self, text="The meter was replaced.", at=NOW + 2 * HOUR):
        await answer_ticket.resolve(
            self.conn,
            ticket_id=self.ticket_id,
            text=text,
            actor_id=self.agent,
            now=at,
            languages=languages(),
        )

    async def hear(self, text="It is still wrong.", at=NOW + 3 * HOUR):
        await answer_ticket.add_customer_message(
            self.conn, ticket_id=self.ticket_id, text=text, actor_id=None, now=at
        )


@pytest.fixture
async def desk(conn):
    town = await build(conn)
    ticket = (await opened(conn, town, kind=TicketKind.NO_SUPPLY, meter_id=town.meters["a1"])).ticket
    return Desk(conn, town, ticket, await town.staff())


async def test_a_reply_reaches_the_customer_and_meets_the_first_answer(desk):
    await desk.reply()
    clocks = await desk.clocks()
    assert clocks[ClockKind.FIRST_RESPONSE].met_at == NOW + HOUR
    assert clocks[ClockKind.RESOLUTION].met_at is None
    assert "We look into it." in (await messages(desk.conn))[-1][2]
    assert (await desk.ticket()).state is TicketState.OPEN


async def test_a_note_is_for_staff_and_meets_nothing(desk):
    await answer_ticket.add_note(
        desk.conn, ticket_id=desk.ticket_id, text="Angry", actor_id=desk.agent, now=NOW + HOUR
    )
    assert await desk.kinds() == ["opened", "note"]
    assert await desk.kinds(public_only=True) == ["opened"]
    assert (await desk.clocks())[ClockKind.FIRST_RESPONSE].met_at is None
    assert len(await messages(desk.conn)) == 1


async def test_assigning_is_told_to_staff_alone(desk):
    for _ in range(2):
        await answer_ticket.assign_ticket(
            desk.conn, ticket_id=desk.ticket_id, assignee_id=desk.agent, actor_id=desk.agent, now=NOW
        )
    ticket = await desk.ticket()
    assert (ticket.state, ticket.assignee) == (TicketState.ASSIGNED, "Huda")
    assert await desk.kinds() == ["opened", "assigned"]
    assert await desk.kinds(public_only=True) == ["opened"]


async def test_a_ticket_goes_to_staff_only(desk):
    cur = await desk.conn.execute(
        "INSERT INTO portal.login (role, customer_id, display_name) VALUES ('subscriber', %s, 'x') RETURNING id",
        (desk.town.customers["a1"],),
    )
    subscriber = (await cur.fetchone())[0]
    with pytest.raises(TicketRefused, match="assignee_unknown"):
        await answer_ticket.assign_ticket(
            desk.conn, ticket_id=desk.ticket_id, assignee_id=subscriber, actor_id=desk.agent, now=NOW
        )


async def test_asking_waits_for_the_customer_whose_word_brings_it_back(desk):
    await answer_ticket.assign_ticket(
        desk.conn, ticket_id=desk.ticket_id, assignee_id=desk.agent, actor_id=desk.agent, now=NOW
    )
    await desk.reply("Which lamp is lit?", asks=True)
    assert (await desk.ticket()).state is TicketState.WAITING_CUSTOMER
    await desk.hear("The red one.")
    assert (await desk.ticket()).state is TicketState.ASSIGNED


@pytest.mark.parametrize("text", ["", "  \n "])
async def test_no_ticket_closes_without_a_written_answer(desk, text):
    with pytest.raises(TicketRefused, match="resolution_empty"):
        await desk.resolve(text)
    assert (await desk.ticket()).state is TicketState.OPEN
    assert (await desk.clocks())[ClockKind.RESOLUTION].met_at is None


async def test_resolving_stops_its_clocks_and_tells_the_customer(desk):
    await desk.resolve()
    ticket = await desk.ticket()
    assert (ticket.state, ticket.resolved_at) == (TicketState.RESOLVED, NOW + 2 * HOUR)
    assert {clock.met_at for clock in (await desk.clocks()).values()} == {NOW, NOW + 2 * HOUR}
    assert "The meter was replaced." in (await messages(desk.conn))[-1][2]
    with pytest.raises(TicketRefused, match="ticket_resolved"):
        await desk.resolve("again")


async def test_within_14_days_the_customer_takes_it_up_again_and_the_clock_runs_on(desk):
    due = (await desk.clocks())[ClockKind.RESOLUTION].due_at
    await desk.resolve()
    await desk.hear(at=NOW + 12 * HOUR)
    assert (await desk.ticket()).state is TicketState.OPEN
    assert (await desk.ticket()).resolved_at is None
    clock = (await desk.clocks())[ClockKind.RESOLUTION]
    assert clock.met_at is None
    assert clock.due_at == due + 10 * HOUR  # the ten hours that it was resolved are not counted
    assert await desk.kinds() == ["opened", "resolved", "customer_message", "reopened"]


async def test_after_14_days_it_is_a_new_ticket(desk):
    await desk.resolve()
    with pytest.raises(TicketRefused, match="reopen_window_over"):
        await desk.hear(at=NOW + timedelta(days=15))
    assert await desk.kinds() == ["opened", "resolved"]


async def test_an_impatient_thumb_is_one_message(desk):
    await desk.reply(at=NOW + HOUR)
    await desk.reply(at=NOW + HOUR + timedelta(seconds=20))
    assert await desk.kinds() == ["opened", "reply"]
    await desk.reply(at=NOW + 3 * HOUR)
    assert await desk.kinds() == ["opened", "reply", "reply"]


async def test_a_long_answer_is_cut_in_the_sms_and_whole_on_the_page(desk):
    await desk.reply("word " * 400)
    assert len((await messages(desk.conn))[-1][2]) < 400
    entries = await ticket_store.list_entries(desk.conn, desk.ticket_id)
    assert len(entries[-1].body) == len("word " * 400) - 1


async def test_a_percent_sign_is_only_a_percent_sign(desk):
    await desk.reply("5% %(reference)s %s {x}")
    assert "5% %(reference)s %s {x}" in (await messages(desk.conn))[-1][2]


async def test_files_are_kept_with_their_ticket(desk):
    file_id = await answer_ticket.attach(
        desk.conn,
        ticket_id=desk.ticket_id,
        file_name="../meter.exe",
        content=PNG,
        actor_id=desk.agent,
        now=NOW,
    )
    (listed,) = await attachment_store.list_attachments(desk.conn, desk.ticket_id)
    assert (listed.file_name, listed.media_type, listed.size_bytes) == ("meter.png", "image/png", len(PNG))
    found = await attachment_store.find_attachment(desk.conn, desk.ticket_id, file_id)
    assert found is not None
    assert found.content == PNG
    assert await attachment_store.find_attachment(desk.conn, desk.ticket_id + 1, file_id) is None


async def test_files_have_a_bound(desk):
    for number in range(10):
        await answer_ticket.attach(
            desk.conn,
            ticket_id=desk.ticket_id,
            file_name=f"{number}.png",
            content=PNG,
            actor_id=desk.agent,
            now=NOW,
        )
    with pytest.raises(TicketRefused, match="too_many_files"):
        await answer_ticket.attach(
            desk.conn, ticket_id=desk.ticket_id, file_name="x", content=PNG, actor_id=desk.agent, now=NOW
        )
