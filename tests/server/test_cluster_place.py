"""A node's place in a cluster: its name and addresses, as far as settings leave them to the machine."""

from __future__ import annotations

import pytest

from rabbitish.addresses import ClusterAddress, HostPort, SettingError
from rabbitish.config import Settings
from rabbitish.server.cluster_place import ClusterPlace, cluster_place, needed_in_sync


def place(**settings: str | int) -> ClusterPlace:
    given: dict[str, object] = {"cluster": "etcd://e", "data_dir": "d", **settings}
    return cluster_place(Settings(**given), "host7")  # type: ignore[arg-type]


def test_what_nobody_said() -> None:
    assert place() == ClusterPlace(
        ClusterAddress((HostPort("e", 2379),), "rabbitish"),
        "host7",
        HostPort("0.0.0.0", 25672),
        HostPort("host7", 0),
        0,
        5,
    )


def test_what_was_said() -> None:
    said = place(node_name="a", cluster_min_in_sync=2, cluster_ttl_s=7)
    assert (said.node, said.min_in_sync, said.ttl_s) == ("a", 2, 7)


@pytest.mark.parametrize(
    ("listen", "advertise", "told"),
    [
        ("0.0.0.0:0", "", ("host7", 4711)),
        ("[::]:25672", "", ("host7", 4711)),
        ("10.0.0.1:0", "", ("10.0.0.1", 4711)),
        ("localhost:0", "", ("localhost", 4711)),
        ("0.0.0.0:0", "public", ("public", 4711)),
        ("0.0.0.0:0", "[::1]:99", ("::1", 99)),
    ],
)
def test_where_others_are_told_to_come(listen: str, advertise: str, told: tuple[str, int]) -> None:
    assert place(cluster_listen=listen, cluster_advertise=advertise).advertised(4711) == told


def test_a_host_whose_name_is_none_for_a_node() -> None:
    with pytest.raises(SettingError, match=r"^node_name must name it"):
        cluster_place(Settings(cluster="etcd://e", data_dir="d"), "my host")


@pytest.mark.parametrize(
    ("setting", "replicas", "needed"), [(0, 1, 1), (0, 2, 1), (0, 3, 2), (0, 4, 3), (0, 5, 3), (1, 5, 1), (3, 2, 3)]
)
def test_how_many_must_have_a_record(setting: int, replicas: int, needed: int) -> None:
    assert needed_in_sync(setting, replicas) == needed
