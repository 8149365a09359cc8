"""A cluster that stands until it is told to end, for clients that know nothing of clusters and look at one mirror.

    python -m tests.cluster.processes.standing FOLDER [OPTION...]

The options are of `rabbitish serve`, for each of three nodes. When all are in sync it says where one of the mirrors
listens; FOLDER/data is the data directory of the leader, which answers commands. It ends on SIGTERM and with its input,
so that nothing is left when whoever started it is gone. It fails where not all nodes are in sync in the end, where
leadership has moved (clients may have looked at the leader), and where a node complained or ended badly.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import trio

from rabbitish.cluster.protocol.state import GroupState, node_of

from .nodes import Cluster, cluster


async def _settled(nodes: Cluster) -> GroupState:
    """What etcd says once all are in sync. Impatient."""
    await nodes.whole()
    state = await nodes.state()
    assert state is not None
    return state


async def stand(folder: Path, options: list[str], told: trio.Event) -> None:
    """See the module. AssertionError: something is not as it should be."""
    async with cluster(folder, options=options) as nodes:
        before = await _settled(nodes)
        leader = node_of(before.leader)
        mirror, other = (name for name in nodes.names if name != leader)
        (folder / "data").symlink_to(nodes.nodes[leader].data)
        print(f"node {mirror}, a mirror of {leader}, listening on {nodes.nodes[mirror].uri}", flush=True)
        await told.wait()
        after = await _settled(nodes)
        assert after.epoch == before.epoch, f"leadership has moved: {before}, now {after}"
        for name in (mirror, other, leader):
            await nodes.stop(name)
        assert not nodes.tracebacks(), "\n".join(nodes.tracebacks())


async def main(folder: Path, options: list[str]) -> None:
    """Until a signal comes, or whoever started this is gone."""
    told = trio.Event()
    async with trio.open_nursery() as nursery:

        async def signalled(*, task_status: trio.TaskStatus[None]) -> None:
            with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
                task_status.started()
                async for _ in signals:
                    told.set()

        @nursery.start_soon
        async def alone() -> None:
            while await trio.to_thread.run_sync(os.read, sys.stdin.fileno(), 4096, abandon_on_cancel=True):
                pass
            told.set()

        await nursery.start(signalled)
        await stand(folder, options, told)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]).resolve(), sys.argv[2:])
