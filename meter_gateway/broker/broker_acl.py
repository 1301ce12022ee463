"""mosquitto's acl_file: each edge speaks and hears for itself alone, headends hear all, nobody else anything."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

from meter_gateway.topics import CONTRACT, DOWN_KINDS, UP_KINDS, down_filter, up_filter

_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")

_HEAD: Final = """\
# Written by `raseed gateway acl` from the edges in the database: edit nothing here, write it anew.
# After a change: send mosquitto a SIGHUP. Who is not named may publish nothing and is sent nothing.
# A name is a certificate's common name (use_identity_as_username) or a user of the password file.
"""


class InvalidAcl(ValueError):
    """Names that cannot stand in one file of rules; the text says which."""


def make_acl(edges: Iterable[str], headends: Sequence[str]) -> str:
    """Return the file for these edges (site codes and DRNs) and headends (their user names). Raises InvalidAcl."""
    listed = sorted(set(edges))
    for name in (*listed, *headends):
        if not _NAME.fullmatch(name):
            # A plus or a hash would be a rule for everybody.
            raise InvalidAcl(f"{name!r} cannot stand in a topic: letters, digits, - and _, up to 64")
    if not headends:
        raise InvalidAcl("name at least one headend, or nobody hears the meters")
    both = sorted(set(listed) & set(headends))
    if both:
        raise InvalidAcl(f"{both[0]} is the name of an edge and of a headend: rename the headend")
    parts = [_HEAD]
    parts += [
        _rules(name, read=[f"{CONTRACT}/up/+/{kind}" for kind in UP_KINDS], write=_every_down())
        for name in headends
    ]
    parts += [_rules(name, read=[down_filter(name)], write=[up_filter(name)]) for name in listed]
    return "\n".join(parts)


def _every_down() -> list[str]:
    return [f"{CONTRACT}/down/+/{kind}" for kind in DOWN_KINDS]


def _rules(name: str, *, read: Sequence[str], write: Sequence[str]) -> str:
    lines = [f"user {name}"]
    lines += [f"topic read {topic}" for topic in read]
    lines += [f"topic write {topic}" for topic in write]
    return "\n".join(lines) + "\n"
