"""What a meter's answer to a token means for the person who waits for it, and what to do next (field rules 4.6)."""

from __future__ import annotations

from portal.i18n import msg

RESULT_WORDS: dict[str, str] = {
    "accept": msg("Your meter accepted the token."),
    "first_kct": msg("Your meter took the first key-change token. It needs the second one now."),
    "second_kct": msg("Your meter took the second key-change token."),
    "third_kct": msg("Your meter took the third key-change token."),
    "fourth_kct": msg("Your meter took the fourth key-change token."),
    "overflow_error": msg(
        "Your meter cannot hold that much yet. Use some credit first: the token stays valid."
    ),
    "key_type_error": msg("Your meter has another kind of key. We have to look at it: please contact us."),
    "format_error": msg("The digits are not a token. Check them and type them again."),
    "range_error": msg("The token carries a value that your meter does not allow. Please contact us."),
    "function_error": msg("Your meter cannot do what the token asks for. Please contact us."),
    "old_error": msg("The token has expired for your meter. We replace it: please contact us."),
    "used_error": msg("Your meter has this token already. Nothing was added and nothing was lost."),
    "key_expired_error": msg("Your meter needs a new key first. Please contact us."),
    "ddtk_error": msg("The installation of your meter is not finished. Please contact us."),
    "crc_error": msg("The digits do not fit this meter. Check the digits, and that it is the right meter."),
    "mfr_code_error": msg("The token is for a meter of another maker. Please contact us."),
    "locked_out": msg("Too many wrong tries: the meter waits for a while. Try again in twenty minutes."),
}
OTHER_RESULT = msg("Your meter did not take the token. Please contact us.")


def result_words(result: str | None) -> str:
    """Return the msgid for a TokenResult name in any case, or the general one."""
    return RESULT_WORDS.get((result or "").lower(), OTHER_RESULT)
