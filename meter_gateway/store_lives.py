"""Births and deaths of a batch: who is there now, and who only seems to be."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from itertools import zip_longest

import psycopg

from meter_gateway import edge_store
from meter_gateway.topics import Birth, Death


@dataclass(slots=True)
class Lives:
    """What births and deaths came to."""

    births: list[Birth] = field(default_factory=list)
    late_births: list[Birth] = field(default_factory=list)  # of a session before the last one known
    strangers: list[Birth] = field(default_factory=list)  # of edges that are in no book
    links: dict[str, bool] = field(default_factory=dict)  # what they say of the meters behind an edge


async def store_lives(conn: psycopg.AsyncConnection, lives: Iterable[Birth | Death], now: datetime) -> Lives:
    """Store births and deaths: what one edge says in its order, all edges at once.

    A broker that was killed is followed by a birth of every edge, so each step is one statement for all of them.
    """
    told: defaultdict[str, list[Birth | Death]] = defaultdict(list)
    for life in lives:
        told[life.edge].append(life)
    found = Lives()
    if not told:
        return found
    # Rows are locked in one order, whoever else stores.
    await edge_store.lock_edges(conn, told)
    known = await edge_store.list_known(
        conn, [life for of_one in told.values() for life in of_one if isinstance(life, Birth)]
    )
    for step in zip_longest(*told.values()):
        deaths = [life for life in step if isinstance(life, Death)]
        found.links |= dict.fromkeys(await edge_store.mark_dead(conn, deaths), False)
        births = [life for life in step if isinstance(life, Birth)]
        found.strangers += [birth for birth in births if (birth.edge, birth.kind) not in known]
        births = [birth for birth in births if (birth.edge, birth.kind) in known]
        heard = await edge_store.mark_born(conn, births, now)
        found.births += [birth for birth in births if birth.edge in heard]
        found.late_births += [birth for birth in births if birth.edge not in heard]
        found.links |= {birth.edge: True for birth in births if birth.edge in heard and birth.kind == "meter"}
    return found
