"""What programs ask of the page: named endpoints, figures for Prometheus, and who is let in."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from gradio_client import Client

from app.access import Access, read_users
from app.actions import Actions
from app.page import Page
from tests.app.fakes import LABELS, FakeRecognizer, until

USERS = read_users("anna:correct horse:operator\nben:battery staple")
ANNA, BEN = ("anna", "correct horse"), ("ben", "battery staple")


@pytest.fixture(scope="module")
def page(small_recording: Path) -> Iterator[Page]:
    with Page(lambda: FakeRecognizer(), {"square": small_recording}) as page:  # type: ignore[arg-type,return-value]
        yield page


@pytest.fixture(scope="module")
def guarded(small_recording: Path) -> Iterator[Page]:
    access = Access(users=USERS)
    with Page(lambda: FakeRecognizer(), {"square": small_recording}, access=access) as page:  # type: ignore[arg-type,return-value]
        yield page


@pytest.fixture(scope="module")
def client(page: Page) -> Client:
    return Client(page.url, verbose=False, analytics_enabled=False)


def test_every_action_has_a_named_endpoint_with_types(client: Client) -> None:
    endpoints = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert set(endpoints) == {"/open_tab", "/state", *(f"/{name}" for name in Actions.names())}
    seek = endpoints["/seek"]["parameters"]
    assert [(p["parameter_name"], p["python_type"]["type"]) for p in seek] == [("token", "str"), ("seconds", "float")]


def test_a_program_watches_and_controls(client: Client) -> None:
    token = client.predict(api_name="/open_tab")
    until(lambda: client.predict(token, api_name="/state")["labels"])
    assert client.predict(token, api_name="/state")["labels"][0][0] in LABELS
    client.predict(token, api_name="/pause")
    assert client.predict(token, api_name="/state")["playing"] is False
    client.predict(token, 1.5, api_name="/seek")
    until(lambda: client.predict(token, api_name="/state")["position_us"] % 10**9 >= 1_500_000)
    with pytest.raises(Exception, match="the speed is 0.05 to 20 times"):
        client.predict(token, 1000.0, api_name="/speed")
    with pytest.raises(Exception, match="load the page again"):
        client.predict("guessed", api_name="/play")


def test_pictures_come_with_the_state(page: Page, client: Client) -> None:
    token = client.predict(api_name="/open_tab")
    reply = httpx.get(f"{page.url}frames/{token}?after=0&panes=events&width=32")
    told, _, jpeg = reply.content.partition(b"\n")
    state = json.loads(told)
    assert state["panes"] == ["events"] and state["widths"] == [32] and jpeg.startswith(b"\xff\xd8")
    assert state["setup"]["models"] == ["fake"] and state["timeline"]["rows"]
    known = f"setup={state['setup']['version']}&channel={state['channel']}&change={state['timeline']['change']}"
    again = json.loads(httpx.get(f"{page.url}frames/{token}?after=0&{known}").content.partition(b"\n")[0])
    assert again["setup"] is None and len(again["timeline"]["rows"]) < 20


@pytest.mark.parametrize("query", ["after=-1", "after=x&panes=,,&width=1e9", "panes=etc&change=9" + "9" * 400])
def test_odd_questions_are_answered(page: Page, client: Client, query: str) -> None:
    token = client.predict(api_name="/open_tab")
    assert httpx.get(f"{page.url}frames/{token}?{query}").status_code == 200


@pytest.mark.parametrize(
    "body", ["[]", "{", '{"seconds": "x"}', '{"seconds": 1, "token": "x"}', "[" * 5000, "1" * 20_000]
)
def test_odd_arguments_are_refused(page: Page, client: Client, body: str) -> None:
    token = client.predict(api_name="/open_tab")
    reply = httpx.post(f"{page.url}act/{token}/seek", content=body)
    assert reply.status_code == 200 and reply.json()["done"] is False and "\n" not in reply.json()["message"]


def test_figures_are_there_for_prometheus(page: Page, client: Client) -> None:
    token = client.predict(api_name="/open_tab")
    until(lambda: client.predict(token, api_name="/state")["label_ms"])
    lines = httpx.get(f"{page.url}metrics").text.splitlines()
    samples = [line for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r'[a-z_]+(\{([a-z]+="[^"]*",?)+\})? -?[0-9.e+]+', line) for line in samples)
    named = {line.split("{")[0].split(" ")[0] for line in samples}
    assert {"velora_viewers", "velora_labels_per_second", "velora_label_seconds", "velora_stride_samples"} <= named
    assert token not in "\n".join(lines)


def test_nobody_gets_in_without_a_name_and_password(guarded: Page) -> None:
    for path in ("", "metrics", "frames/x?after=0", "export/x.csv", "snapshot/x", "config", "gradio_api/info"):
        reply = httpx.get(guarded.url + path)
        assert reply.status_code == 401 and "Basic" in reply.headers["www-authenticate"], path
    for path in ("act/x/play", "gradio_api/upload", "gradio_api/queue/join", "gradio_api/call/open_tab"):
        assert httpx.post(guarded.url + path, auth=("anna", "wrong horse")).status_code == 401, path
    assert httpx.get(guarded.url, auth=BEN).status_code == 200


def test_only_operators_may_do_more_than_watch(guarded: Page, small_recording: Path) -> None:
    token = guarded.viewers.open("tab", small_recording)
    refused = httpx.post(f"{guarded.url}act/{token}/record", auth=BEN).json()
    allowed = httpx.post(f"{guarded.url}act/{token}/record", auth=ANNA).json()
    assert "for operators" in refused["message"] and "only live sources" in allowed["message"]
    for who, operates in ((ANNA, True), (BEN, False)):
        token = guarded.viewers.open(f"tab of {who[0]}", small_recording, operator=operates)
        state = json.loads(httpx.get(f"{guarded.url}frames/{token}", auth=who).content.partition(b"\n")[0])
        assert state["setup"]["operates"] is operates


def test_only_operators_are_told_of_folders(guarded: Page, tmp_path: Path, small_recording: Path) -> None:
    guarded._actions._batch.label(tmp_path / "missing", tmp_path / "out", "demo")
    for who, told in ((ANNA, True), (BEN, False)):
        token = guarded.viewers.open(f"tab of {who[0]}", small_recording, operator=told)
        reply = httpx.get(f"{guarded.url}frames/{token}", auth=who).content.partition(b"\n")[0]
        assert (json.loads(reply)["batch"] is not None) is told and (str(tmp_path).encode() in reply) is told
    guarded._actions._batch.wait(60)


def test_a_page_that_is_closed_leaves_no_thread(small_recording: Path) -> None:
    with Page(lambda: FakeRecognizer(), {"square": small_recording}) as page:  # type: ignore[arg-type,return-value]
        token = page.viewers.open("tab", small_recording)
        assert httpx.get(f"{page.url}frames/{token}").status_code == 200
        pictures = page._pictures
    with pytest.raises(RuntimeError, match="shutdown"):
        pictures.submit(print)


def test_programs_sign_in_too(guarded: Page) -> None:
    headers = {"Authorization": "Basic " + base64.b64encode(b"ben:battery staple").decode()}
    client = Client(guarded.url, verbose=False, analytics_enabled=False, headers=headers)
    token = client.predict(api_name="/open_tab")
    with pytest.raises(Exception, match="for operators"):
        client.predict(token, api_name="/record")
