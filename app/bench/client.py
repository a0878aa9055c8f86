"""What asks the page for pictures, in a process of its own, as a browser is one."""

from __future__ import annotations

import asyncio
import json
import time

import httpx

_TIMEOUT_S = 20.0
_client: list[httpx.Client] = []  # one connection, kept open from question to question


def pull(url: str, requests: int) -> tuple[int, bytes]:
    """Ask so many times; how many bytes came, and the last answer. Raises httpx.HTTPError."""
    if not _client:
        _client.append(httpx.Client(timeout=_TIMEOUT_S, trust_env=False))
    total, body = 0, b""
    for _ in range(requests):
        reply = _client[0].get(url)
        reply.raise_for_status()
        body = reply.content
        total += len(body)
    return total, body


def watch(urls: list[str], seconds: float) -> list[int]:
    """Ask for each next picture at each address, all at once, for so long; how many pictures each one got."""
    return asyncio.run(_watch(urls, seconds))


async def _watch(urls: list[str], seconds: float) -> list[int]:
    async with httpx.AsyncClient(timeout=_TIMEOUT_S, trust_env=False) as client:
        last = time.monotonic() + seconds
        return list(await asyncio.gather(*(_follow(client, url, last) for url in urls)))


async def _follow(client: httpx.AsyncClient, url: str, last: float) -> int:
    number, pictures, known = 0, 0, ""
    while time.monotonic() < last:
        reply = await client.get(f"{url}?after={number}{known}")
        reply.raise_for_status()
        state = json.loads(reply.content.partition(b"\n")[0])
        if state["setup"] is not None:
            known = f"&setup={state['setup']['version']}&channel={state['channel']}"
        if "number" in state:
            number, pictures = state["number"], pictures + 1
    return pictures
