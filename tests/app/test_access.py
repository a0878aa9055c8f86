"""Who may do what on the page."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from app.access import Access, is_this_machine, read_users
from streams import StreamError

USERS = read_users("# of the lab\nanna:correct horse:operator\n\nben:battery staple\ncarl:with:colons:in it\n")


def signed(name: str, password: str) -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}


ANNA, BEN = signed("anna", "correct horse"), signed("ben", "battery staple")


def test_on_a_page_for_this_machine_everybody_operates() -> None:
    assert Access().operates({})


def test_on_a_page_that_others_reach_nobody_operates_without_users() -> None:
    assert not Access(open_to_others=True).operates({})


def test_where_there_are_users_nobody_else_is_admitted() -> None:
    access = Access(users=USERS)
    wrong = [signed("anna", "wrong"), signed("anna", ""), signed("dora", "correct horse"), signed("dora", "")]
    odd = [{"authorization": text} for text in ("", "Basic", "Basic ???", "Bearer abc", "Basic /////w==")]
    assert not any(access.user(headers) or access.operates(headers) for headers in [{}, *wrong, *odd])
    assert access.user(ANNA) and access.operates(ANNA)
    assert access.user(BEN) and not access.operates(BEN)
    assert access.user(signed("carl", "with:colons:in it"))


@pytest.mark.parametrize("text", ["", "# nobody\n", "anna\n", "anna:short\n", ":no name at all\n"])
def test_a_file_of_users_that_is_none_is_refused_without_telling_passwords(text: str) -> None:
    with pytest.raises(ValueError, match="NAME:PASSWORD") as raised:
        read_users(text)
    assert "short" not in str(raised.value) and "correct" not in repr(USERS)


def test_paths_are_opened_only_below_the_folders_allowed(tmp_path: Path) -> None:
    inside, outside = tmp_path / "ours", tmp_path / "theirs"
    for folder in (inside, outside):
        folder.mkdir()
        (folder / "a.aedat4").touch()
    (inside / "link.aedat4").symlink_to(outside / "a.aedat4")
    access = Access(folders=(inside.resolve(),))
    assert access.place(str(inside / "a.aedat4")) == (inside / "a.aedat4").resolve()
    for address in (
        str(outside / "a.aedat4"),
        str(inside / ".." / "theirs" / "a.aedat4"),
        str(inside / "link.aedat4"),
        "/etc/passwd",
        "relative.aedat4",
        "~/a.aedat4",
    ):
        with pytest.raises(ValueError, match="not in a folder that may be opened"):
            access.place(address)


@pytest.mark.parametrize("address", ["a\0b", "~nobody-of-this-name/a", "/" + "a" * 5000, "tcp:a\0b"])
def test_what_is_no_path_is_one_line(tmp_path: Path, address: str) -> None:
    with pytest.raises((ValueError, StreamError)) as raised:
        Access(folders=(tmp_path.resolve(),)).place(address)
    assert "\n" not in str(raised.value)


def test_folders_with_colons_in_their_names_are_folders(tmp_path: Path) -> None:
    access = Access(folders=(tmp_path.resolve(),))
    assert access.place(str(tmp_path / "12:30" / "new")) == tmp_path.resolve() / "12:30" / "new"
    with pytest.raises(ValueError, match="not in a folder"):
        access.place("/elsewhere/12:30/new")


def test_addresses_are_opened_only_where_that_is_allowed(tmp_path: Path) -> None:
    with pytest.raises(StreamError, match="no such kind of source"):
        Access(uris=True).place("file:/etc/passwd")
    for address in ("tcp://127.0.0.1:7777", "dv:", "webcam:0"):
        with pytest.raises(ValueError, match="--allow-uri"):
            Access(folders=(tmp_path,)).place(address)
    assert Access(uris=True).place("tcp://127.0.0.1:7777") == "tcp://127.0.0.1:7777"
    hardvs = tmp_path / "clips"
    hardvs.mkdir()
    with pytest.raises(ValueError, match="not in a folder"):  # an address whose rest is a path
        Access(uris=True).place(f"hardvs:{hardvs}")


@pytest.mark.parametrize(
    "host, expected",
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("[::1]", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("lab.local", False),
    ],
)
def test_what_only_this_machine_reaches(host: str, expected: bool) -> None:
    assert is_this_machine(host) is expected
