"""The line to the payment provider: ask how a payment stands, never inside a transaction."""

from __future__ import annotations

from datetime import datetime
from http import HTTPStatus
from uuid import UUID

import httpx

from billing.errors import ProviderUnavailable
from billing.take_payment import ProviderEvent, read_status, status_headers, status_path

TIMEOUT_S = 3.0  # an answer of one row; what takes longer is asked again later
MAX_ANSWER = 16 * 1024  # the answer has some 200 bytes


class ProviderLink:
    """One provider's address and secret over a client of the caller's."""

    def __init__(self, client: httpx.AsyncClient, *, url: str, secret: str) -> None:
        self._client = client
        self._url = url.rstrip("/")
        self._secret = secret

    async def ask(self, payment_id: UUID, now: datetime) -> ProviderEvent | None:
        """What the provider says of a payment; None while it has no outcome there.

        Raises ProviderUnavailable.
        """
        headers = status_headers(self._secret, payment_id, now)
        try:
            answer = await self._client.get(
                self._url + status_path(payment_id), headers=headers, timeout=TIMEOUT_S
            )
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ProviderUnavailable("provider_silent", f"no answer: {type(error).__name__}") from None
        if answer.status_code == HTTPStatus.NOT_FOUND:
            return None
        if answer.status_code != HTTPStatus.OK or len(answer.content) > MAX_ANSWER:
            raise ProviderUnavailable("provider_silent", f"answered {answer.status_code}")
        return read_status(payment_id, answer.content)
