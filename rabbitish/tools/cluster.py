"""The commands `rabbitish cluster ...`: what an operator sees of a cluster and may change.

All but force-leader ask a node that runs, by its control socket, and are commands by rabbitmqctl's names too, where it
has them. force-leader is for when none can: it works on a data directory that no broker runs on, and on etcd.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from rabbitish.tools import control
from rabbitish.tools.typed import COMMANDS, argument, command

_COLUMNS = ("node", "role", "in_sync", "live", "lag", "address")
_ROLES = {"follower": "mirror, not connected to a leader", "candidate": "mirror, about to lead"}


def _show(result: Any) -> None:
    role = _ROLES.get(result["role"], result["role"])
    role += "" if result["serves"] or role != "leader" else ", not serving yet"
    gone = any(each["role"] == "leader" and not each["live"] for each in result["replicas"])
    led_by = f"{result['leader'] or 'nobody'}{', which is not live' if gone else ''}"
    click.echo(f"cluster {result['cluster']}, epoch {result['epoch']}, led by {led_by}")
    click.echo(f"this is {result['node']} ({role}): its log ends at {result['last']}")
    click.echo(f"what all in sync have ends at {result['committed']}; {result['needed']} must be in sync for a confirm")
    click.echo(f"etcd: {result['etcd']}\n")
    rows = [[_word(each[column]) for column in _COLUMNS] for each in result["replicas"]]
    click.echo(control.table([column.replace("_", " ") for column in _COLUMNS], rows))


def _word(value: object) -> object:
    return "?" if value is None else {True: "yes", False: "no"}[value] if isinstance(value, bool) else value


@command(click.option("--json", "as_json", is_flag=True, help="Everything, as JSON."), show=_show)
def cluster_status() -> dict[str, object]:
    """Show who leads the cluster, and which replicas are in sync. How far behind they are its leader alone knows."""
    return {}


@command(argument("node", required=False), show=lambda result, node: click.echo(f"{result} is to lead"))
def transfer_leadership(node: str | None) -> dict[str, object]:
    """Have another node lead the cluster: NODE, or the mirror that has most. Clients connect anew."""
    return {"node": node}


def _show_balance(result: Any) -> None:
    clients = sorted(result["clients"].items())
    counts = ", ".join(f"{node or 'brought by older nodes'} {count}" for node, count in clients)
    if result["leader"] == result["before"]:
        click.echo(f"{result['leader']} leads, and no node that could has more clients: {counts}")
    else:
        click.echo(f"{result['leader']} is to lead, since it has more clients than {result['before']}: {counts}")


@command(show=_show_balance)
def rebalance_leadership() -> dict[str, object]:
    """Have the node lead the cluster to which most clients are connected. The old leader's own connect anew."""
    return {}


@command(argument("node"))
def forget_cluster_node(node: str) -> dict[str, object]:
    """Have the cluster not count on a node any more that will not come back."""
    return {"node": node}


@click.group()
def cluster() -> None:
    """Look at a cluster, and change it."""


for _name, _command in (
    ("status", "cluster_status"),
    ("transfer", "transfer_leadership"),
    ("rebalance", "rebalance_leadership"),
    ("forget", "forget_cluster_node"),
):
    cluster.add_command(next(each for each in COMMANDS if each.name == _command), _name)


@cluster.command("force-leader")
@click.option("--cluster", "url", metavar="URL", help="As for serve.")
@click.option("--node-name", metavar="NAME", help="As for serve.")
@click.option("--data-dir", metavar="DIR", help="As for serve; no broker may be running on it.")
@click.option("--config", "config_file", type=click.Path(path_type=Path), envvar="RABBITISH_CONFIG", help="TOML file.")
@click.option("--yes", is_flag=True, help="Do it, whatever is lost.")
def force_leader(
    url: str | None, node_name: str | None, data_dir: str | None, config_file: Path | None, yes: bool
) -> None:
    """Have this node lead when no node that is in sync will ever come back, with what it has.

    Tells what may be lost, and does it with --yes. Then start this node with `rabbitish serve`; the others get what it
    has, and what they have beyond that is gone.
    """
    from rabbitish.server.settings_file import ConfigError, Given, load

    given = {
        "cluster": (url, "--cluster"),
        "node_name": (node_name, "--node-name"),
        "data_dir": (data_dir, "--data-dir"),
    }
    try:
        loaded = load(
            config_file,
            os.environ,
            {key: Given(value, where) for key, (value, where) in given.items() if value is not None},
        )
    except ConfigError as error:
        control.fail(str(error), control.EXIT_UNUSABLE)
    if not loaded.settings.cluster:
        control.fail("which cluster is not said: --cluster, or RABBITISH_CLUSTER", control.EXIT_UNUSABLE)
    if find_spec("h11") is None:
        control.fail("this needs h11, to speak to etcd: pip install h11", control.EXIT_UNUSABLE)
    from rabbitish.server.cluster_force import CannotForce, force_here

    try:
        forced = force_here(loaded.settings, yes)
    except CannotForce as error:
        control.fail(str(error))
    for loss in forced.losses:
        click.echo(f"rabbitish: {loss}", err=True)
    if not yes:
        said = "nothing that was confirmed is lost" if not forced.losses else "this may lose what was confirmed"
        control.fail(f"{said}; give --yes to have this node lead")
    nodes = ", ".join(forced.nodes)
    click.echo(f"it leads when it is started; the cluster is {nodes}, and others join it when they are started")
