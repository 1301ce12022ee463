"""A demo in small, run as a process of its own by tests that kill it: PostgreSQL, broker and a sleeper.

Writes one row at each start and prints how many there are: `up ROWS`. Then waits for a signal.
"""

import asyncio
import sys
from pathlib import Path

import psycopg

from raseed.embedded_broker import EmbeddedBroker
from raseed.embedded_postgres import EmbeddedPostgres
from raseed.supervisor import ChildSpec, Supervisor


async def run(data_dir: Path, postgres_port: int, broker_port: int) -> None:
    postgres = EmbeddedPostgres(data_dir / "postgres", postgres_port)
    broker = EmbeddedBroker(data_dir / "broker", broker_port)
    async with Supervisor(data_dir) as supervisor:
        await supervisor.start(postgres.child_spec(), broker.child_spec())
        await supervisor.start(ChildSpec(name="sleeper", argv=["sleep", "300"], after=["postgres", "broker"]))
        supervisor.publish(database_url=postgres.connection_url)
        async with await psycopg.AsyncConnection.connect(postgres.connection_url) as conn:
            await conn.execute("CREATE TABLE IF NOT EXISTS started (at timestamptz DEFAULT now())")
            await conn.execute("INSERT INTO started DEFAULT VALUES")
            row = await (await conn.execute("SELECT count(*) FROM started")).fetchone()
        print("up", row[0] if row else 0, flush=True)
        await supervisor.forever()


if __name__ == "__main__":
    asyncio.run(run(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
