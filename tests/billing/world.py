"""A made-up house for the tests of money: customers, two tariffs, meters with and without a link, a vault."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from billing import customer_store, identity_store, ledger, ledger_store, tariff_store
from billing.tariff import Block
from token_engine.decoder_key import VendingKey
from token_engine.identifiers import BaseDate, KeyType, luhn_digit
from token_engine.key_material import VendingKeyMaterial
from token_engine.software_vault import SoftwareVault

NOW = datetime(2026, 11, 22, 9, 0, tzinfo=UTC)
LONG_AGO = datetime(2025, 1, 1, tzinfo=UTC)
SGC = {"electricity": "201457", "water": "201458"}
KEYS = {
    "electricity": "0102030405060708090a0b0c0d0e0f1011121314",
    "water": "1112131415161718191a1b1c1d1e1f2021222324",
}
ELECTRICITY_BLOCKS = (Block(10_000, 14_000), Block(None, 20_000))  # 14 baisa up to 1000 kWh, then 20
WATER_BLOCKS = (Block(300, 550_000), Block(None, 770_000))


@dataclass(frozen=True)
class House:
    """One customer with one meter."""

    customer_id: int
    meter_id: int
    drn: str
    commodity: str
    agreement_id: int


def drn_of(number: int) -> str:
    body = f"06{number:08d}"
    return body + luhn_digit(body)


def make_vault() -> SoftwareVault:
    return SoftwareVault(
        {
            (SGC[commodity], 1, KeyType.DUTK): VendingKey(
                VendingKeyMaterial(bytes.fromhex(KEYS[commodity])), KeyType.DUTK, BaseDate.Y2014
            )
            for commodity in SGC
        }
    )


async def make_tariffs(conn) -> None:
    for commodity, blocks in (("electricity", ELECTRICITY_BLOCKS), ("water", WATER_BLOCKS)):
        await tariff_store.insert_tariff(
            conn,
            code=f"home-{commodity}",
            version=1,
            commodity=commodity,
            valid_from=LONG_AGO,
            name_en="Home",
            name_ar="سكني",
            blocks=blocks,
            vat_basis_points=500,
            arrears_cap_percent=20,
            minimum_minor=500,
            maximum_minor=100_000,
        )


async def make_meter(
    conn, number: int, commodity: str = "electricity", link: str = "mqtt"
) -> tuple[int, str]:
    cursor = await conn.execute(
        "INSERT INTO meter_gateway.meter (drn, commodity, model, link) VALUES (%s, %s, 'E1', %s) RETURNING id",
        (drn_of(number), commodity, link),
    )
    meter_id = (await cursor.fetchone())[0]
    await identity_store.insert_identity(
        conn,
        meter_id=meter_id,
        iin="600727",
        sgc=SGC[commodity],
        ti="01",
        krn=1,
        kt=2,
        ken=255,
        ea="07",
        dkga="04",
        base_date=2014,
    )
    return meter_id, drn_of(number)


async def make_house(
    conn,
    number: int = 1,
    *,
    commodity: str = "electricity",
    link: str = "mqtt",
    language: str = "ar",
    debt_minor: int = 0,
) -> House:
    """A customer with a meter in a house; the tariffs must be there."""
    one = await conn.execute(
        "INSERT INTO meter_gateway.network_node (code, commodity, kind, name_en, name_ar)"
        " VALUES (%s, %s, %s, 'N', 'ن') RETURNING id",
        (f"N{number}", commodity, "transformer" if commodity == "electricity" else "zone"),
    )
    node_id = (await one.fetchone())[0]
    two = await conn.execute(
        "INSERT INTO meter_gateway.service_location (code, address_en, address_ar) VALUES (%s, 'A', 'ع') RETURNING id",
        (f"L{number}",),
    )
    location_id = (await two.fetchone())[0]
    three = await conn.execute(
        "INSERT INTO meter_gateway.usage_point (code, service_location_id, network_node_id, commodity)"
        " VALUES (%s, %s, %s, %s) RETURNING id",
        (f"U{number}", location_id, node_id, commodity),
    )
    point_id = (await three.fetchone())[0]
    meter_id, drn = await make_meter(conn, number, commodity, link)
    await conn.execute(
        "INSERT INTO meter_gateway.meter_installation (meter_id, usage_point_id, installed_at, installed_by)"
        " VALUES (%s, %s, %s, 'test')",
        (meter_id, point_id, LONG_AGO),
    )
    customer = await customer_store.insert_customer(
        conn,
        code=f"C{number}",
        name_en="Salim",
        name_ar="سالم",
        phone=f"+9689{number:07d}",
        language=language,
    )
    agreement_id = await customer_store.insert_agreement(
        conn,
        customer_id=customer.id,
        usage_point_id=point_id,
        tariff_code=f"home-{commodity}",
        valid_from=LONG_AGO,
    )
    if debt_minor:
        entry = ledger.opening_entry(customer.id, debt_minor, source="old-system")
        await ledger_store.insert_entry(conn, entry, now=LONG_AGO)
    return House(customer.id, meter_id, drn, commodity, agreement_id)


class Clock:
    """A clock that the test turns."""

    def __init__(self, now: datetime = NOW) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def forward(self, **span: float) -> datetime:
        self.now += timedelta(**span)
        return self.now
