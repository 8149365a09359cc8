"""Two clients from npm, amqplib and @cloudamqp/amqp-client: each conversation is a run of node that answers in JSON.

The scripts in node/ hold the conversations, this file what must come of them. The packages are installed once into
pytest's cache, or a temporary folder without one; nothing is installed into the repository.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .support import DEADLINE, missing

SCRIPTS = Path(__file__).parent / "node"
Talk = Callable[[str], Any]


@pytest.fixture(scope="session")
def node_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the scripts and the packages that they import; named by what package.json says."""
    if not shutil.which("node") or not shutil.which("npm"):
        missing("node or npm is not installed")
    wanted = hashlib.sha256((SCRIPTS / "package.json").read_bytes()).hexdigest()[:12]
    cache = getattr(request.config, "cache", None)
    folder = Path(cache.mkdir(f"rabbitish-node-{wanted}")) if cache else tmp_path_factory.mktemp("node")
    shutil.copytree(SCRIPTS, folder, dirs_exist_ok=True)
    done = folder / "node_modules" / ".installed"
    if not done.exists():
        options = [
            "--no-audit",
            "--no-fund",
            "--no-package-lock",
            "--prefer-offline",
            "--fetch-retries=0",
            "--fetch-timeout=30000",
        ]
        install = subprocess.run(["npm", "install", *options], cwd=folder, capture_output=True, text=True, check=False)
        if install.returncode != 0:
            missing("npm install failed: " + "; ".join(re.findall(r"npm error (.+)", install.stderr)[:2]))
        done.touch()
    return folder


@pytest.fixture
def talk(request: pytest.FixtureRequest, node_folder: Path, broker_url: str, names: list[str]) -> Talk:
    """Runs one conversation of the class's script with two fresh names; its answer."""
    script = request.cls.script

    def run(conversation: str) -> Any:
        command = ["node", script, broker_url, conversation, *names]
        done = subprocess.run(
            command, cwd=node_folder, capture_output=True, text=True, timeout=2 * DEADLINE, check=False
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


@pytest.fixture
def names(new_name: Callable[[], str]) -> list[str]:
    return [new_name(), new_name()]


class TestAmqplib:
    script = "amqplib.mjs"

    def test_hello_world(self, talk: Talk, names: list[str]) -> None:
        said = talk("hello")
        assert said["product"] == "RabbitMQ"
        assert all(said["capabilities"].values())
        assert said["declared"] == {"queue": names[0], "messageCount": 0, "consumerCount": 0}
        assert said["text"] == "Hello World!"
        assert said["fields"] == {"deliveryTag": 1, "redelivered": False, "exchange": "", "routingKey": names[0]}
        assert (said["empty"], said["generatedTag"]) == (False, "amq.ctag-")

    def test_confirms(self, talk: Talk) -> None:
        assert talk("confirms") == {"refused": "message nacked", "messageCount": 3}

    def test_work_queue_with_prefetch(self, talk: Talk) -> None:
        assert talk("workQueue") == {
            "first": ["0", "1"],
            "rest": ["2", "3"],
            "messageCount": 0,
            "consumerCount": 2,
            "again": ["0", True],
        }

    def test_rpc(self, talk: Talk) -> None:
        assert talk("rpc") == [["queue", "49"], ["direct", "64"]]

    def test_topic(self, talk: Talk) -> None:
        assert talk("topic") == {"got": ["kern.info", "cron.critical", "kern.critical"], "messageCount": 0, "left": 0}

    def test_properties_and_cc(self, talk: Talk, names: list[str]) -> None:
        assert talk("properties") == {
            "text": "grüße",
            "CC": [names[1]],
            "second": "grüße",
            "sentBy": True,
            "lost": [],
            "sameHeaders": True,
        }

    def test_return_comes_before_its_confirm(self, talk: Talk) -> None:
        assert talk("returns") == [[312, "NO_ROUTE", "lost"], "confirmed"]

    def test_error_texts(self, talk: Talk, names: list[str]) -> None:
        name, other = names
        no_route = f"404 (NOT-FOUND) with message \"NOT_FOUND - no {{}} '{name}' in vhost '/'\""
        inequivalent = (
            f"406 (PRECONDITION-FAILED) with message \"PRECONDITION_FAILED - inequivalent arg '{{}}' "
            f"for queue '{other}' in vhost '/': received {{}}\""
        )
        wanted = {
            "queue": (50, 10, no_route.format("queue")),
            "exchange": (40, 10, no_route.format("exchange")),
            "publish": (60, 40, no_route.format("exchange")),
            "durable": (50, 10, inequivalent.format("durable", "'false' but current is 'true'")),
            "ttl": (50, 10, inequivalent.format("x-message-ttl", "the value '5' of type 'byte' but current is none")),
            "tag": (60, 80, '406 (PRECONDITION-FAILED) with message "PRECONDITION_FAILED - unknown delivery tag 9"'),
        }
        said = talk("errors")
        assert said.keys() == wanted.keys()
        for what, (class_id, method_id, text) in wanted.items():
            message = f"Channel closed by server: {text}"
            assert said[what] == {
                "code": int(text[:3]),
                "classId": class_id,
                "methodId": method_id,
                "message": message,
            }

    def test_hard_error(self, talk: Talk) -> None:
        text = "NOT_ALLOWED - attempt to reuse consumer tag 'same'"
        assert talk("hardError") == {
            "code": 530,
            "message": f'Connection closed: 530 (NOT-ALLOWED) with message "{text}"',
        }

    def test_refused_logins(self, talk: Talk) -> None:
        password, vhost = talk("refusedLogin")
        assert "403 (ACCESS-REFUSED)" in password
        assert "Login was refused using authentication mechanism PLAIN. For details see the broker logfile." in password
        assert "ConnectionClose" in vhost  # all that amqplib says of a refused vhost

    def test_large_messages(self, talk: Talk) -> None:
        assert talk("large") == [True, True]

    def test_consumer_cancel_notification(self, talk: Talk) -> None:
        assert talk("cancelled") == {"notified": None, "usable": 0}

    def test_recovery_after_a_lost_connection(self, talk: Talk) -> None:
        assert talk("recovery") == {"text": "goes on", "connections": 2}

    def test_heartbeats_keep_an_idle_connection(self, talk: Talk) -> None:
        assert talk("heartbeats") == "expired"


class TestAmqpClient:
    script = "amqp-client.mjs"

    def test_hello_world(self, talk: Talk, names: list[str]) -> None:
        assert talk("hello") == {
            "declared": {"name": names[0], "messageCount": 0, "consumerCount": 0},
            "text": "Hello World!",
            "type": "text/plain",
            "fields": {"exchange": "", "routingKey": names[0], "deliveryTag": 1, "redelivered": False},
            "empty": None,
        }

    def test_confirms(self, talk: Talk) -> None:
        assert talk("confirms") == {"tags": [1, 2, 3], "refused": "Message rejected", "messageCount": 3}

    def test_work_queue_by_iterator(self, talk: Talk) -> None:
        assert talk("workQueue") == [["a", False], ["b", False], ["b", True], ["c", False]]

    def test_rpc_by_direct_reply_to(self, talk: Talk) -> None:
        assert talk("rpc") == ["ONE", "TWO", "THREE"]

    def test_topic_and_headers(self, talk: Talk) -> None:
        assert talk("topic") == {"got": ["disk.error", "mail.error.again"], "generated": True}

    def test_properties(self, talk: Talk) -> None:
        assert talk("properties") == {"text": "grüße", "lost": []}

    def test_return_comes_before_its_confirm(self, talk: Talk) -> None:
        assert talk("returns") == [[312, "NO_ROUTE", "lost"], ["confirmed", 1]]

    def test_error_texts(self, talk: Talk, names: list[str]) -> None:
        name, other = names
        inequivalent = f"PRECONDITION_FAILED - inequivalent arg '{{}}' for queue '{other}' in vhost '/': received {{}}"
        wanted = {
            "queue": f"NOT_FOUND - no queue '{name}' in vhost '/' (404)",
            "exchange": f"NOT_FOUND - no exchange '{name}' in vhost '/' (404)",
            "get": f"NOT_FOUND - no queue '{name}' in vhost '/' (404)",
            "durable": inequivalent.format("durable", "'false' but current is 'true' (406)"),
            "length": inequivalent.format(
                "x-max-length", "the value '5' of type 'signedint' but current is none (406)"
            ),
            "notEmpty": f"PRECONDITION_FAILED - queue '{other}' in vhost '/' not empty (406)",
        }
        assert talk("errors") == {what: f"channel 2 closed: {text}" for what, text in wanted.items()}

    def test_hard_error(self, talk: Talk) -> None:
        text = "NOT_IMPLEMENTED - prefetch_size!=0 (1) (540)"
        assert talk("hardError") == {"message": f"connection closed: {text}", "closed": True}

    def test_refused_logins(self, talk: Talk) -> None:
        password = "Login was refused using authentication mechanism PLAIN. For details see the broker logfile."
        assert talk("refusedLogin") == [
            f"connection closed: ACCESS_REFUSED - {password} (403)",
            "connection closed: NOT_ALLOWED - vhost nowhere not found (530)",
        ]

    def test_transaction(self, talk: Talk) -> None:
        assert talk("transaction") == [0, 1]

    def test_large_messages(self, talk: Talk) -> None:
        assert talk("large") == [True, True]

    def test_consumer_cancel_notification(self, talk: Talk) -> None:
        assert talk("cancelled") == {"said": "Consumer cancelled by the server", "usable": 0}

    def test_session_recovers_its_subscription(self, talk: Talk) -> None:
        assert talk("session") == {"states": ["connected", "disconnected", "connected"], "got": ["before", "after"]}
