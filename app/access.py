"""Who may do what on the page: anybody who reaches it may watch; operators record, label, teach and open other sources.

On a page that only this machine reaches, everybody is an operator. Elsewhere those are whom a file of users names so:
lines of NAME:PASSWORD, with :operator behind it for operators. Then nobody gets anywhere without a name and password
(HTTP Basic, RFC 7617).
"""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
import itertools
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from streams.files import is_within
from streams.source import kind_of
from streams.text import storable

OPERATOR = "operator"
_LEAST_PASSWORD = 8
_MOST_FOLDERS = 200  # that are offered


@dataclass(frozen=True, slots=True)
class User:
    """Somebody whom the file names."""

    name: str
    password: str = field(repr=False)
    operator: bool


@dataclass(frozen=True)
class Access:
    """What is allowed to whom. `folders` are those below which paths may be opened; `uris` whether addresses may."""

    open_to_others: bool = False
    users: Mapping[str, User] = field(default_factory=dict)
    folders: tuple[Path, ...] = ()
    uris: bool = False

    def user(self, headers: Mapping[str, str]) -> User | None:
        """Who sends these headers; None: nobody that is known."""
        name, password = _given(headers)
        user = self.users.get(name)
        known = hmac.compare_digest((user.password if user else "").encode(), password.encode())
        return user if known and user is not None else None

    @staticmethod
    def claimed(headers: Mapping[str, str]) -> str:
        """The name that the sender gives, true or not; an empty text where there is none."""
        return _given(headers)[0]

    def operates(self, headers: Mapping[str, str]) -> bool:
        """Whether the sender may do more than watch."""
        if self.users:
            user = self.user(headers)
            return user is not None and user.operator
        return not self.open_to_others

    def place(self, address: str) -> Path | str:
        """What may be opened of what somebody typed. Raises ValueError, one line, for what may not.

        StreamError for an address of no known kind.
        """
        scheme, colon, rest = address.partition(":")
        if not colon or Path(address).is_absolute() or Path(address).exists():
            return self._below(address)
        if not kind_of(address).live:  # a folder with the kind of its layout before it
            return f"{scheme}:{self._below(rest)}"
        if not self.uris:
            raise ValueError(f"{address}: addresses are not opened here; start velora with --allow-uri")
        return address

    def keeps(self, path: Path) -> bool:
        """Whether a path below a folder that may be opened is no link to anywhere else; others are not judged."""
        lies = Path(os.path.abspath(path))
        return not any(map(lies.is_relative_to, self.folders)) or is_within(lies, self.folders)

    def folders_below(self) -> list[str]:
        """The folders that may be opened, and those in them; not more than a person looks through."""
        inner = (path for folder in self.folders for path in sorted(folder.iterdir()) if path.is_dir())
        shown = (str(path) for path in inner if not path.name.startswith(".") and storable(path.name) == path.name)
        return [*map(str, self.folders), *itertools.islice(shown, _MOST_FOLDERS)]

    def _below(self, address: str) -> Path:
        try:
            path = Path(address).expanduser().resolve()
        except (OSError, ValueError, RuntimeError) as error:  # too long, with a null byte, of a user who is not there
            raise ValueError(f"{address}: is no path ({error}); give that of a file or folder") from None
        if not is_within(path, self.folders):
            raise ValueError(f"{address}: not in a folder that may be opened here; start velora with --allow FOLDER")
        return path


def _given(headers: Mapping[str, str]) -> tuple[str, str]:
    """Name and password; empty texts where none are given, or none that can be read."""
    scheme, _, given = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return "", ""
    try:
        name, _, password = base64.b64decode(given, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return "", ""
    return name, password


def read_users(text: str) -> dict[str, User]:
    """The users that a text names, a line each. Raises ValueError that says which line is wrong, not what is in it."""
    users: dict[str, User] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, rest = line.strip().partition(":")
        password, _, role = rest.rpartition(":") if rest.endswith(f":{OPERATOR}") else (rest, "", "")
        if not name or len(password) < _LEAST_PASSWORD:
            raise ValueError(
                f"line {number} of the users is not NAME:PASSWORD with {_LEAST_PASSWORD} characters or more"
            )
        users[name] = User(name, password, role == OPERATOR)
    if not users:
        raise ValueError("there are no users: write lines of NAME:PASSWORD, with :operator behind it for operators")
    return users


def is_this_machine(host: str) -> bool:
    """Whether a server bound to it is reached from this machine alone."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:  # a name
        return host == "localhost"
