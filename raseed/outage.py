"""`raseed simulate outage`: cut or restore the supply under a network node of the running simulator."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from raseed.settings import Settings

CONTROL_TIMEOUT_S = 5.0  # the control port is on this machine: longer means that it is gone


def cut_or_restore(options: argparse.Namespace, settings: Settings) -> int:
    """Tell the simulator's control port; return 0 when it obeyed, 1 when it could not be reached or refused."""
    import httpx

    url = settings.control_url or _url_of_demo(options.data)
    if not url:
        print(
            f"raseed simulate outage: no demo is running in {options.data}. Start one:  raseed demo",
            file=sys.stderr,
        )
        return 1
    try:
        if not options.node:
            return _list_nodes(httpx.get(f"{url}/network", timeout=CONTROL_TIMEOUT_S))
        answer = httpx.post(
            f"{url}/network/{options.node}/power",
            json={"on": bool(options.restore)},
            headers={"X-Raseed-Control": "1"},
            timeout=CONTROL_TIMEOUT_S,
        )
    except httpx.HTTPError as error:
        print(f"raseed simulate outage: the simulator at {url} does not answer ({error})", file=sys.stderr)
        return 1
    if answer.status_code == httpx.codes.NOT_FOUND:
        print(
            f"raseed simulate outage: there is no node {options.node}; list them with no name",
            file=sys.stderr,
        )
        return 1
    answer.raise_for_status()
    print(f"{options.node}: supply {'restored' if options.restore else 'cut'}")
    return 0


def _list_nodes(answer: object) -> int:
    nodes = answer.json()  # type: ignore[attr-defined]
    for node in nodes:
        state = "on" if node.get("powered", True) else "OFF"
        print(f"{node['code']:<12} {node['kind']:<12} {state:<4} {node.get('name_en', '')}")
    return 0


def _url_of_demo(data: Path) -> str:
    try:
        ports = json.loads((data / "ports.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    return f"http://127.0.0.1:{ports['control']}"
