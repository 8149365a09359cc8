"""Who may log in."""

from __future__ import annotations

import pytest

from rabbitish.core.access import Access

ADMINISTRATOR = frozenset({"administrator"})


@pytest.fixture
def access() -> Access:
    access = Access(frozenset({"guest"}))
    access.add_user("guest", "guest", ADMINISTRATOR)
    access.add_user("joe", "päss", frozenset())
    access.add_user("mute", "", frozenset())
    return access


def test_name_and_password_let_in(access: Access) -> None:
    joe = access.login("joe", "päss".encode(), loopback=False)
    assert joe is not None
    assert (joe.name, joe.tags) == ("joe", frozenset())
    guest = access.login("guest", b"guest", loopback=True)
    assert guest is not None
    assert (guest.name, guest.tags) == ("guest", ADMINISTRATOR)
    assert access.login("guest", b"guest", loopback=True) is guest


@pytest.mark.parametrize(
    ("name", "password"),
    [("joe", b"pass"), ("joe", b""), ("joe", b"\xff\xfe"), ("nobody", b"x"), ("nobody", b""), ("", b""), ("J", b"j")],
)
def test_anything_else_does_not(access: Access, name: str, password: bytes) -> None:
    assert access.login(name, password, loopback=True) is None


def test_an_empty_password_never_lets_in(access: Access) -> None:
    assert access.login("mute", b"", loopback=True) is None


def test_guest_comes_from_this_machine_only(access: Access) -> None:
    assert access.login("guest", b"guest", loopback=False) is None
    assert access.login("joe", "päss".encode(), loopback=True) is not None


def test_a_user_is_replaced(access: Access) -> None:
    access.add_user("joe", "new", ADMINISTRATOR)
    assert access.login("joe", "päss".encode(), loopback=True) is None
    joe = access.login("joe", b"new", loopback=True)
    assert joe is not None
    assert joe.tags == ADMINISTRATOR


def test_who_has_proved_in_another_way_to_be_somebody_needs_no_password(access: Access) -> None:
    joe = access.named("joe", loopback=False)
    assert joe is not None
    assert joe is access.login("joe", "päss".encode(), loopback=False)
    assert access.named("nobody", loopback=True) is None
    assert access.named("guest", loopback=False) is None
    assert access.named("guest", loopback=True) is not None
