"""What programs ask of the page: named endpoints, figures for Prometheus, and who is let in."""

from __future__ import annotations

import base64
import json
import os
import re
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from gradio_client import Client

from app.access import Access, read_users
from app.actions import Actions
from app.page import Page
from app.school import School
from tests.app.fakes import LABELS, FakeRecognizer, until

USERS = read_users("anna:correct horse:operator\nben:battery staple")
OWN_THREADS = ("picture", "setup", "slow", "viewer")
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
    before = set(threading.enumerate())
    with Page(lambda: FakeRecognizer(), {"square": small_recording}) as page:  # type: ignore[arg-type,return-value]
        token = page.viewers.open("tab", small_recording)
        assert httpx.get(f"{page.url}frames/{token}").status_code == 200
        pictures = page._pictures
    with pytest.raises(RuntimeError, match="shutdown"):
        pictures.submit(print)
    until(lambda: not [t.name for t in set(threading.enumerate()) - before if t.name.startswith(OWN_THREADS)])


def test_programs_sign_in_too(guarded: Page) -> None:
    headers = {"Authorization": "Basic " + base64.b64encode(b"ben:battery staple").decode()}
    client = Client(guarded.url, verbose=False, analytics_enabled=False, headers=headers)
    token = client.predict(api_name="/open_tab")
    with pytest.raises(Exception, match="for operators"):
        client.predict(token, api_name="/record")


def test_a_disk_that_hangs_holds_up_one_tabs_setup_alone(
    page: Page, small_recording: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pictures come on, of this tab and of others, however often they are asked for."""
    slow, other = (page.viewers.open(name, small_recording) for name in ("a slow tab", "another"))
    taught, hangs = page._actions.taught, threading.Event()

    def hanging(token: str, headers: Mapping[str, str]) -> dict[str, Any]:
        if token == slow:
            hangs.wait(30)
        return taught(token, headers)

    monkeypatch.setattr(page._actions, "taught", hanging)
    try:
        for _ in range(6):
            reply = httpx.get(f"{page.url}frames/{slow}", timeout=5)
            assert json.loads(reply.content.partition(b"\n")[0])["setup"] is None
        told = json.loads(httpx.get(f"{page.url}frames/{other}", timeout=5).content.partition(b"\n")[0])
        assert told["setup"]["models"] == ["fake"]
    finally:
        hangs.set()
    until(lambda: json.loads(httpx.get(f"{page.url}frames/{slow}").content.partition(b"\n")[0])["setup"])


def test_a_guest_asks_for_one_slow_thing_at_a_time(guarded: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    loading, loaded = threading.Event(), threading.Event()

    def get(_: str) -> FakeRecognizer:
        loading.set()
        loaded.wait(30)
        return FakeRecognizer()

    monkeypatch.setattr(guarded._actions._models, "get", get)
    token = guarded.viewers.open("a guest", next(iter(guarded._actions._offers.values())), operator=False)
    act = f"{guarded.url}act/{token}/"
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(httpx.post, f"{act}use_model", json={"name": "fake"}, auth=BEN, timeout=60)
        assert loading.wait(10)
        for _ in range(20):
            refused = httpx.post(f"{act}use_model", json={"name": "fake"}, auth=BEN).json()
            assert not refused["done"] and "one thing after the other" in refused["message"]
        assert httpx.post(f"{act}pause", auth=BEN).json()["done"]
        loaded.set()
        assert first.result().json()["done"]
    assert httpx.post(f"{act}use_model", json={"name": "fake"}, auth=BEN).json()["done"]


def test_words_are_bounded(page: Page, client: Client) -> None:
    token = client.predict(api_name="/open_tab")
    asked = httpx.post(f"{page.url}act/{token}/words", json={"labels": ",".join(f"w{k}" for k in range(300))}).json()
    assert asked == {"done": False, "message": "give 2 to 200 words, with commas between them"}


def test_names_that_are_no_utf_8_are_shown_somehow(small_recording: Path, tmp_path: Path) -> None:
    odd = tmp_path / os.fsdecode(b"caf\xe9.aedat4")
    try:
        odd.write_bytes(small_recording.read_bytes())
    except OSError:
        pytest.skip("no such name can be here")
    access = Access(folders=(tmp_path,))
    (tmp_path / os.fsdecode(b"d\xe9")).mkdir()
    with Page(lambda: FakeRecognizer(), {odd.name: odd}, access=access) as page:  # type: ignore[arg-type,return-value]
        token = page.viewers.open("tab", odd)
        until(lambda: page.viewers.get(token).moment)
        told = json.loads(httpx.get(f"{page.url}frames/{token}").content.partition(b"\n")[0])
        assert told["recording"] == odd.name and told["setup"]["watching"] == odd.name
        assert httpx.post(f"{page.url}act/{token}/choose", content=json.dumps({"name": odd.name})).json()["done"]
        for route in (f"folder/{token}", "metrics", f"snapshot/{token}", f"export/{token}.csv"):
            until(lambda: page.viewers.get(token).moment)
            assert httpx.get(page.url + route).status_code == 200
        assert httpx.get(f"{page.url}labels/{token}.csv").status_code == 404


def test_programs_without_a_session_have_a_tab_each(page: Page) -> None:
    asked = f"{page.url}gradio_api/run/predict"
    index = next(k for k, f in enumerate(page._demo.config["dependencies"]) if f["api_name"] == "open_tab")
    tokens = {httpx.post(asked, json={"data": [], "fn_index": index}).json()["data"][0] for _ in range(2)}
    assert len(tokens) == 2 and all(page.viewers.get(token) for token in tokens)


def test_guests_learn_nothing_of_examples_and_paths(guarded: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise ValueError("/home/anna/uploads/x.labels.csv, line 3: nothing")

    monkeypatch.setattr(guarded._actions._school, "book", fails)
    monkeypatch.setattr(guarded._actions._school, "counts", lambda: {"secret": 3})
    monkeypatch.setattr(School, "recording", "a secret")
    for who, told in ((ANNA, True), (BEN, False)):
        own = next(iter(guarded._actions._offers.values()))
        token = guarded.viewers.open(f"tab of {who[0]}", own, operator=told)
        reply = httpx.get(f"{guarded.url}frames/{token}", auth=who).content.partition(b"\n")[0]
        assert (b"anna/uploads" in reply) is told and (b"secret" in reply) is told
