from datetime import timedelta

from meter_gateway.binary_copy import copy_bytes, copy_rows, field, micros
from tests.meter_gateway.places import NOW


async def test_rows_arrive_as_they_were_given(conn):
    await conn.execute("CREATE TEMPORARY TABLE t (at timestamptz, word text, number bigint)")
    at = NOW + timedelta(microseconds=1)
    async with conn.cursor() as cursor:
        order = "COPY t FROM STDIN (FORMAT BINARY)"
        row = (3).to_bytes(2, "big")
        row += (8).to_bytes(4, "big") + micros(at).to_bytes(8, "big") + field("é")
        row += (8).to_bytes(4, "big") + (-5).to_bytes(8, "big", signed=True)
        await copy_bytes(cursor, order, [row, row])
        await copy_rows(cursor, order, ["int8", "text", "int8"], [(micros(at), "b", None)])
        await cursor.execute("SELECT at, word, number FROM t")
        assert await cursor.fetchall() == [(at, "é", -5), (at, "é", -5), (at, "b", None)]
