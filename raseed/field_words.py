"""What the field tool says in a terminal: refusals by their reason, verdicts, items of a checklist."""

from __future__ import annotations

from typing import Final

VERDICTS: Final = {
    "confirmed": "confirmed: the display and the profile {profile} agree",
    "other_order": "REFUSED: the display agrees with {order}, not with the profile {profile}: choose another profile",
    "no_order": "REFUSED: no word order gives this number: another register, another scale, or another meter",
    "ambiguous": "undecided: several orders come near; read more digits or choose another register",
}
_REFUSALS: Final = {
    "number_letters": "a meter number has digits only",
    "number_length": "a meter number has 11 or 13 digits",
    "number_check_digit": "the check digit does not fit: one digit is wrong or two are swapped",
    "number_unknown": "no such meter is in our books: raseed field add",
    "commodity_unknown": "the commodity is electricity or water",
    "link_unknown": "the link is modbus, mqtt or keypad",
    "model_missing": "say its model, up to 80 letters",
    "profile_unknown": "there is no such profile: raseed field probe names the likely one",
    "profile_other_commodity": "this profile is for another commodity",
    "meter_known": "this meter is in our books with another commodity, link or profile",
    "identity_invalid": "the key identity is wrong: compare SGC, TI, KRN and key type with the meter's papers",
    "identity_missing": "this meter has no key identity: raseed field add with --sgc",
    "no_link": "this meter has no link of this kind",
    "bus_unknown": "the site has no bus of this name",
    "unit_taken": "another meter has this unit on this bus: remove or replace it first",
    "point_unknown": "there is no such usage point",
    "point_taken": "a meter hangs there already: replace it",
    "meter_or_point_taken": "the meter or the place is taken, or they are of two commodities",
    "not_installed": "this meter hangs nowhere: raseed field install",
    "sale_open": "a sale of the old meter is open: wait until its token is made",
    "credit_on_its_way": "a token is on its way to the old meter: let it arrive, or type it in first",
    "token_word_needed": "a token for the old meter did not arrive and was not reported back: look at its display and"
    " say --silent taken (included there) or --silent not_taken",
    "reading_changed": "the meter has told another reading meanwhile, or none lately: look again",
    "credit_above_told": "the meter cannot hold so much by what it told and what was bought: let the credit wait",
    "credit_below_told": "the display shows less than the meter told and used since: let the credit wait",
    "reading_missing": "a token was not reported back: who says what came of it reads the display, with --counter and"
    " --credit",
    "clear_unknown": "nobody has said whether the clear_credit token of this meter was taken: raseed field cleared",
    "reading_impossible": "this reading cannot be",
    "reading_below_last": "the final reading is below what the meter said last: look again",
    "reading_needed": "the meter has not reported lately: read its display and say --counter and --credit",
    "key_used": "this key was used for another order before",
    "no_customer": "nobody has an agreement for this place: there is nobody to credit",
    "no_tariff": "the place has no tariff: the credit cannot be valued",
    "carry_not_waiting": "this credit went to a meter, or into the books, already",
    "carry_waits": "this credit waits already, and no meter of its customer hangs there",
    "credit_not_cleared": "credit of its last place still stands in this meter: clear it first (clear_credit token)",
    "same_meter": "the old and the new meter are the same",
    "other_commodity": "the old and the new meter are of two commodities",
    "meter_hangs": "the new meter hangs somewhere already",
    "no_register_then": "nobody read the register near that time: read display and register together",
    "not_opened": "nothing was opened in this visit: there is nothing to close",
    "not_closed": "the relay is open, and not by this exercise: an order, the credit or a hand opened it",
    "left_already": "the order left already: wait for the meter's answer",
    "critical_customer": "a critical customer: the relay is never exercised there",
    "no_consent": "the relay is exercised only with the customer's recorded consent of this visit (--consent-by)",
    "tamper": "the meter reports tamper: its relay is not closed from afar",
    "link_down": "the meter does not answer now",
    "role": "your role may not do this",
}


def refusal_text(reason: str) -> str:
    """The sentence for a refusal's reason, or the reason itself."""
    return _REFUSALS.get(reason, reason)
