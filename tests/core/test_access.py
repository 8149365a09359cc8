"""Who may log in: users, their passwords, where they may come from, and what is remembered of it."""

from __future__ import annotations

import pytest

from rabbitish.core.access import EVERYTHING, Access
from rabbitish.core.access.logins import Attempt
from rabbitish.core.access.passwords import Hashed, hash_as_rabbitmq, hash_password
from rabbitish.core.access.records import User

ADMINISTRATOR = frozenset({"administrator"})
COST = 4
SALT = b"0123456789abcdef"


def make(most_failures: int = 0) -> Access:
    access = Access(frozenset({"guest"}), key=b"secret", most_failures=most_failures, cost=COST)
    access.add_known_user("guest", "guest", ADMINISTRATOR, "/")
    access.add_known_user("joe", "päss", frozenset())
    access.add_known_user("mute", "", frozenset())
    set_password(access, "joe", hash_password("päss".encode(), SALT, COST))
    return access


@pytest.fixture
def access() -> Access:
    return make()


def set_password(access: Access, name: str, hashed: Hashed | None) -> None:
    draft = access.roster.draft()
    draft.set_password(name, hashed)
    access.adopt(draft)


def attempt(access: Access, name: str, password: bytes, address: str = "10.0.0.1", now: int = 0) -> Attempt:
    return access.attempt(name, password, address, now, loopback=True)


def login(access: Access, name: str, password: bytes, *, loopback: bool, now: int = 0) -> User | None:
    made = access.attempt(name, password, "10.0.0.1", now, loopback=loopback)
    made.right = made.right or made.verify()
    return access.conclude(made, now)


def test_name_and_password_let_in(access: Access) -> None:
    joe = login(access, "joe", "päss".encode(), loopback=False)
    assert joe is not None
    assert (joe.name, joe.tags) == ("joe", frozenset())
    guest = login(access, "guest", b"guest", loopback=True)
    assert guest is not None
    assert (guest.name, guest.tags) == ("guest", ADMINISTRATOR)
    assert access.roster.permissions == {("guest", "/"): EVERYTHING}


@pytest.mark.parametrize(
    ("name", "password"),
    [("joe", b"pass"), ("joe", b""), ("joe", b"\xff\xfe"), ("nobody", b"x"), ("nobody", b""), ("", b""), ("J", b"j")],
)
def test_anything_else_does_not(access: Access, name: str, password: bytes) -> None:
    assert login(access, name, password, loopback=True) is None


def test_who_has_no_password_never_logs_in_with_one(access: Access) -> None:
    assert login(access, "mute", b"", loopback=True) is None
    assert login(access, "mute", b"x", loopback=True) is None
    set_password(access, "mute", hash_as_rabbitmq(b"", SALT))
    assert login(access, "mute", b"", loopback=True) is None


def test_guest_comes_from_this_machine_only(access: Access) -> None:
    assert login(access, "guest", b"guest", loopback=False) is None
    assert login(access, "joe", "päss".encode(), loopback=True) is not None


def test_a_certificate_needs_no_password(access: Access) -> None:
    assert access.named("mute", loopback=False) is access.roster.users["mute"]
    assert access.named("guest", loopback=True) is access.roster.users["guest"]
    assert access.named("guest", loopback=False) is None
    assert access.named("nobody", loopback=True) is None


# --- what is slow, and what is remembered ----------------------------------------------------------------------------


def test_a_slow_hash_is_verified_once(access: Access) -> None:
    first = attempt(access, "joe", "päss".encode())
    assert first.slow and not first.right
    assert first.verify()
    first.right = True
    assert access.conclude(first, 0) is access.roster.users["joe"]
    second = attempt(access, "joe", "päss".encode(), address="10.0.0.2")
    assert second.right and not second.slow


def test_a_wrong_password_costs_the_same_whoever_it_is_for(access: Access) -> None:
    assert login(access, "joe", "päss".encode(), loopback=True) is not None
    for name in ("joe", "nobody", "mute"):
        wrong = attempt(access, name, b"wrong")
        assert wrong.hashed is not None and wrong.slow and wrong.hashed.value[0] == COST
        assert not wrong.verify()
        assert access.conclude(wrong, 0) is None
        assert wrong.reason == "wrong name or password"


def test_a_new_password_ends_the_old(access: Access) -> None:
    assert login(access, "joe", "päss".encode(), loopback=True) is not None
    set_password(access, "joe", hash_password(b"new", SALT, COST))
    assert login(access, "joe", "päss".encode(), loopback=True) is None
    assert login(access, "joe", b"new", loopback=True) is not None


def test_what_changes_while_a_password_is_verified_counts(access: Access) -> None:
    begun = attempt(access, "joe", "päss".encode())
    begun.right = begun.verify()
    set_password(access, "joe", hash_password(b"new", SALT, COST))
    assert access.conclude(begun, 0) is None
    begun = attempt(access, "joe", b"new")
    begun.right = begun.verify()
    draft = access.roster.draft()
    draft.delete_user("joe")
    access.adopt(draft)
    assert access.conclude(begun, 0) is None


def test_a_user_that_comes_back_is_another(access: Access) -> None:
    assert login(access, "joe", "päss".encode(), loopback=True) is not None
    draft = access.roster.draft()
    draft.delete_user("joe")
    access.adopt(draft)
    assert login(access, "joe", "päss".encode(), loopback=True) is None
    draft = access.roster.draft()
    draft.add_user("joe", None)
    access.adopt(draft)
    assert login(access, "joe", "päss".encode(), loopback=True) is None


# --- throttling ------------------------------------------------------------------------------------------------------


def fail(access: Access, times: int, name: str = "joe", address: str = "10.0.0.1", now: int = 0) -> int:
    """Try wrong passwords; how many were looked at."""
    looked = 0
    for number in range(times):
        made = attempt(access, name, b"wrong %d" % number, address, now)
        looked += made.hashed is not None
        assert access.conclude(made, now) is None
    return looked


def test_after_some_failures_nothing_is_looked_at() -> None:
    access = make(3)
    assert fail(access, 10) == 3
    right = attempt(access, "joe", "päss".encode())
    assert right.hashed is None and access.conclude(right, 0) is None
    assert right.reason == "too many failures lately"


def test_failures_are_forgiven_one_by_one() -> None:
    access = make(3)
    assert fail(access, 10) == 3
    assert fail(access, 10, now=999) == 0
    assert fail(access, 10, now=1_000) == 1
    assert fail(access, 10, now=4_000) == 3


def test_a_misconfigured_neighbour_locks_nobody_out() -> None:
    access = make(3)
    fail(access, 10)
    assert login(access, "guest", b"guest", loopback=True) is not None
    assert attempt(access, "joe", "päss".encode(), "10.0.0.2").hashed is not None


def test_guessing_many_users_from_one_address() -> None:
    access = make(3)
    made = attempt(access, "joe", "päss".encode())
    made.right = made.verify()
    assert access.conclude(made, 0) is not None
    assert sum(fail(access, 1, name=f"user {number}") for number in range(1_000)) == 30
    assert fail(access, 1, name="somebody", address="10.0.0.2") == 1
    assert attempt(access, "joe", "päss".encode()).right  # has logged in from there before
    assert attempt(access, "guest", b"guest").reason == "too many failures lately"


def test_guessing_one_user_from_many_addresses() -> None:
    access = make(3)
    made = attempt(access, "joe", "päss".encode(), "10.9.9.9")
    made.right = made.verify()
    assert access.conclude(made, 0) is not None
    assert sum(fail(access, 1, address=f"10.0.1.{number}") for number in range(200)) == 30
    assert attempt(access, "joe", "päss".encode(), "10.9.9.9").right
    assert attempt(access, "joe", "päss".encode(), "10.8.8.8").reason
    assert attempt(access, "guest", b"guest", "10.8.8.8").hashed is not None


def test_a_client_with_an_old_password_beside_one_with_the_new() -> None:
    """Behind one proxy, as one user: whoever is known to come from there has more room."""
    access = make(3)
    fail(access, 2)
    assert login(access, "joe", "päss".encode(), loopback=True) is not None
    assert fail(access, 50) == 28
    right = attempt(access, "joe", "päss".encode())
    assert right.hashed is None and not right.right
    assert fail(access, 50, now=100) == 1
    assert attempt(access, "joe", "päss".encode(), now=200).right


def test_no_throttle() -> None:
    access = make(0)
    assert fail(access, 1_000) == 1_000


def test_what_is_counted_is_bounded() -> None:
    access = make(3)
    for number in range(25_000):
        access.logins._throttle.failed(f"10.{number}", f"user {number}", 0)
        access.logins._throttle.succeeded(f"10.{number}", f"user {number}")
    assert len(access.logins._throttle._failed) <= 20_000
    assert len(access.logins._throttle._welcome) <= 20_000
