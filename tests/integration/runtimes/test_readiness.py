"""How instances are asked whether they are ready."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from tests.integration.runtimes.world import KEY, PYTHON, World, wait_for
from tidegate.core import model
from tidegate.core.model import CheckKind, InstanceState
from tidegate.runtimes import readiness

pytestmark = pytest.mark.real


def test_start_is_noticed_quickly(world: World) -> None:
    """An instance is asked in quick succession until it is ready, whatever its interval."""
    check = model.Check(kind=CheckKind.HTTP, interval_s=60.0)
    begun = time.monotonic()
    world.start(world.group(check=check))
    assert time.monotonic() - begun < 10


def test_http_answer_other_than_2xx_and_3xx_is_not_ready(world: World) -> None:
    """503 makes an instance unready, 302 ready again; the process is left alone."""
    group = world.group()
    pid = world.start(group).pid
    world.ask("/health?status=503")
    wait_for(lambda: world.instance().ready is False)
    assert world.instance().state is InstanceState.RUNNING
    world.ask("/health?status=302")
    wait_for(lambda: world.instance().ready)
    assert (world.instance().pid, world.instance().crashes) == (pid, 0)


ANSWERS = [
    (b"HTTP/1.1 204 No Content\r\n\r\n", True, "GET /health answered 204"),
    (b"HTTP/1.1 404 \x1b[31mNot Found\r\n\r\n", False, "GET /health answered 404"),
    (b"HTTP/1.0 503\n", False, "GET /health answered 503"),
    (b"SSH-2.0-\x1b[2Jpretty\r\n", False, "GET /health answered something else than HTTP"),
    (b"HTTP/1.1 2000 OK\r\n", False, "GET /health answered something else than HTTP"),
    (b"", False, "GET /health got no answer, the connection was closed"),
    (None, False, "no answer within 0.3 s"),
]


@pytest.mark.parametrize(("sent", "ready", "said"), ANSWERS, ids=lambda value: repr(value)[:30])
def test_answer_is_told_in_words(sent: bytes | None, ready: bool, said: str) -> None:
    """Whoever listens there: the words say what was asked and what came, and are never the stranger's own."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                if sent is None:
                    hung.wait(20)
                else:
                    connection.sendall(sent)

        hung = threading.Event()
        thread = threading.Thread(target=answer)
        thread.start()
        timeout_s = 0.3 if sent is None else 20.0
        try:
            found = readiness.probe_address(server.getsockname()[1], "/health", timeout_s)
        finally:
            hung.set()
            thread.join()
    assert (found.ready, found.said) == (ready, said)


def test_nobody_listening_is_told() -> None:
    """A port that nobody listens at refuses."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # not listening: nobody else gets the port meanwhile
        found = readiness.probe_address(held.getsockname()[1], "/", 5.0)
    assert (found.ready, found.said) == (False, "connection refused")


@pytest.mark.parametrize("text", ["\x1b[2J" * 500, "a" * 5000, "line\nline\u202e\u2028\x9b"])
def test_words_of_an_answer_are_short_and_harmless(text: str) -> None:
    """Whatever comes from outside drives no terminal and fills no history."""
    said = readiness.Answer(ready=False, said=text).said
    assert 0 < len(said) <= 200
    assert said.isprintable()


def test_instance_says_what_its_check_said(world: World) -> None:
    """The status of an instance has the last answer in words, also when it is no longer ready."""
    group = world.group(check=model.Check(kind=CheckKind.HTTP, path="/x", interval_s=0.2, timeout_s=5.0))
    world.start(group)
    assert world.instance().check == "GET /x answered 200"
    world.ask("/health?status=404")
    wait_for(lambda: world.instance().check == "GET /x answered 404")
    assert world.instance().ready is False


@pytest.mark.parametrize(
    ("check", "said"),
    [
        (model.Check(kind=CheckKind.COMMAND, command=(PYTHON, "-c", "exit(3)"), timeout_s=20.0),
         "the command ended with exit status 3"),
        (model.Check(kind=CheckKind.COMMAND, command=("sleep", "298.6"), timeout_s=0.5),
         "the command took longer than 0.5 s"),
        (model.Check(kind=CheckKind.ALIVE, settle_s=200.0), "has not run for 200 s yet"),
    ],
    ids=["status", "hangs", "young"],
)  # fmt: skip
def test_other_checks_are_told_too(world: World, check: model.Check, said: str) -> None:
    """A command by how it ended, a worker by how long it must have run."""
    world.runtime.apply(world.worker("import time; time.sleep(300)", check=check), key="k")
    wait_for(lambda: world.instance().check == said)
    assert world.instance().ready is False


def test_hanging_check_delays_nobody(world: World) -> None:
    """An instance that does not answer is unready after its time, and observe does not wait for it."""
    check = model.Check(kind=CheckKind.HTTP, interval_s=0.2, timeout_s=1.0)
    world.start(world.group(check=check, instances=2))
    world.ask("/health?status=0", index=0)
    slowest = 0.0

    def unready() -> bool:
        nonlocal slowest
        begun = time.monotonic()
        answer = world.instance(0).ready
        slowest = max(slowest, time.monotonic() - begun)
        return answer is False

    wait_for(unready)
    assert slowest < 0.5
    assert world.instance(1).ready is True


def test_instance_that_listens_late_is_starting_until_then(world: World) -> None:
    """A living process that has not been ready yet is STARTING."""
    group = world.worker("import time; time.sleep(300)", serves=True, check=model.Check(kind=CheckKind.TCP))
    world.runtime.apply(group, key="k")
    wait_for(lambda: world.instance().ready is False)
    seen = world.instance()
    assert (seen.state, seen.crashes) == (InstanceState.STARTING, 0)


def test_tcp_check_is_ready_when_somebody_accepts(world: World) -> None:
    """A connection is enough."""
    world.start(world.group(check=model.Check(kind=CheckKind.TCP)))


def test_command_check_runs_as_the_instance(world: World) -> None:
    """A readiness command has the instance's environment and folder; its exit status decides."""
    world.add(
        "probe.py",
        "import os, sys\n"
        "same = sys.argv[1] == os.environ['PORT'] and os.environ['COLOUR'] == 'blue'\n"
        "sys.exit(not (same and os.path.exists('server.py') and not os.path.exists('broken')))\n",
    )
    check = model.Check(
        kind=CheckKind.COMMAND, command=(PYTHON, "probe.py", "$PORT"), interval_s=0.2, timeout_s=5.0
    )
    world.start(world.group(check=check))
    world.add("broken", "")
    wait_for(lambda: world.instance().ready is False)


def test_command_check_still_runs_after_control_plane_and_shim_were_lost(world: World) -> None:
    """Nothing that a check needs is only in the memory of the process that started the instance."""
    check = model.Check(kind=CheckKind.COMMAND, command=(PYTHON, "-c", "pass"), timeout_s=5.0)
    group = world.group(check=check)
    world.start(group)
    again = world.new_runtime()
    assert again.observe(KEY).groups[0].instances[0].ready is True
    world.kill_shim(group)
    last = world.new_runtime()
    assert last.observe(KEY).groups[0].instances[0].ready is True


def test_command_check_that_hangs_is_killed(world: World) -> None:
    """A command that takes longer than its time is not ready, and leaves no process behind."""
    check = model.Check(kind=CheckKind.COMMAND, command=("sleep", "298.5"), interval_s=0.2, timeout_s=0.5)
    world.runtime.apply(world.group(check=check), key="k")
    wait_for(lambda: world.instance().ready is False)
    world.runtime.close()
    assert world.instance().crashes == 0


def test_worker_is_ready_when_it_has_run_for_a_while(world: World) -> None:
    """ALIVE: not ready before `settle_s`, ready after."""
    check = model.Check(kind=CheckKind.ALIVE, settle_s=0.8)
    begun = time.monotonic()
    group = world.worker("import time; time.sleep(300)", check=check)
    world.runtime.apply(group, key="k")
    assert world.instance().ready is False
    wait_for(lambda: world.ready(group))
    assert time.monotonic() - begun >= 0.75
    assert world.instance().port is None
