"""Jobs run once, ask their paths first, keep their outcome, and never run twice."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.runtimes.test_rights import enforced
from tests.integration.runtimes.world import PYTHON, World, alive, wait_for
from tidegate.core import model
from tidegate.core.model import InstanceState
from tidegate.runtimes import plan as plans
from tidegate.runtimes import smoke
from tidegate.testing import conformance, job_checks

pytestmark = pytest.mark.real

#: Says that it runs, and does what it is told.
JOB = """
import os, subprocess, sys, time
print("job", os.getpid(), os.environ["TIDEGATE_URL"], flush=True)
what = sys.argv[1]
if what == "wait":
    time.sleep(300)
if what == "leave":
    subprocess.Popen(["sleep", "300"])
if what == "eat":
    bytearray(os.urandom(1) * (1 << 28))
sys.exit(int(what) if what.isdecimal() else 0)
"""


def job(world: World, what: str = "0", **changes: object) -> model.InstanceGroup:
    world.add("job.py", JOB)
    run = (PYTHON, "job.py", what) if what else ()
    fields: dict[str, object] = {
        "service": model.VERIFY_SERVICE,
        "run": run,
        "serves": False,
        "check": model.Check(kind=model.CheckKind.ALIVE),
        "environment": (("TIDEGATE_URL", "http://127.0.0.1:9"),),
        "verify": model.Verify(run=run),
    }
    return world.group(**(fields | changes))


def asking(world: World, port: int, *paths: model.Smoke, what: str = "0") -> model.InstanceGroup:
    """A job that asks these paths of the service `web` at that port."""
    links = (("TIDEGATE_URL", "http://127.0.0.1:9"), ("WEB_URL", f"http://127.0.0.1:{port}"))
    wanted = job(world, what)
    return job(world, what, environment=links, verify=model.Verify(run=wanted.run, smoke=paths))


def process(world: World) -> int:
    """The job's process, when it runs."""
    return wait_for(lambda: world.instance().pid or 0)


def ended(world: World) -> model.InstanceStatus:
    wait_for(lambda: world.instance().state is InstanceState.EXITED)
    return world.instance()


def ran(world: World, group: model.InstanceGroup) -> model.InstanceStatus:
    world.runtime.apply(group, key="k")
    return ended(world)


def lines(world: World, group: model.InstanceGroup) -> list[str]:
    return [line.text for line in world.runtime.logs(group.id, tail=100) if line is not None]


@pytest.fixture
def server() -> Iterator[Callable[[dict[str, int]], tuple[int, list[str]]]]:
    """Serves these statuses by path; answers its port and the paths that are asked."""
    running: list[http.server.ThreadingHTTPServer] = []

    def serve(statuses: dict[str, int]) -> tuple[int, list[str]]:
        asked: list[str] = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(self.path)
                self.send_response(statuses.get(self.path, 404))
                self.send_header("Location", "/elsewhere")
                self.end_headers()

            def log_message(self, *args: object) -> None:
                pass

        made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.05}).start()
        running.append(made)
        return made.server_address[1], asked

    yield serve
    for made in running:
        made.shutdown()
        made.server_close()


@pytest.mark.parametrize("check", job_checks.JOB_CHECKS, ids=lambda check: check.__name__)
def test_conformance(check: Callable[[job_checks.MakeJobs], None], world: World) -> None:
    """Processes keep what every runtime promises of jobs."""

    def wait(holds: Callable[[], bool], text: str) -> None:
        try:
            wait_for(holds)
        except AssertionError as error:
            raise AssertionError(text) from error

    def harness() -> job_checks.JobHarness:
        for made in world.groups_of(conformance.KEY):
            world.runtime.remove(made.id, key="next")
            wait_for(lambda: not world.groups_of(conformance.KEY))
        passing, failing, endless = (job(world, what).run for what in ("0", "3", "wait"))
        return job_checks.JobHarness(
            runtime=world.runtime, wait=wait, passing=passing, failing=failing, endless=endless
        )

    check(harness)


def test_job_runs_once_whatever_is_applied(world: World) -> None:
    """During the run, after it, and by another control plane: there is one run in the output."""

    def unused(group: model.InstanceGroup) -> Path:
        raise AssertionError("a job that has ended needs no package")

    group = job(world, "3")
    world.runtime.apply(group, key="k")
    world.runtime.apply(group, key="k")
    seen = ended(world)
    assert (seen.ready, seen.exit, seen.crashes) == (False, "exit status 3", 0)
    world.runtime.apply(group, key="k")
    world.runtime = world.new_runtime()
    assert world.instance() == seen
    world.runtime._content = unused
    world.runtime.apply(group, key="k")
    assert ended(world) == seen
    assert [line.split()[0] for line in lines(world, group)] == ["job", "tidegate:"]


def test_nothing_of_a_job_is_left_but_its_outcome(world: World) -> None:
    """Its shim ends with it, and so does what it has left running."""
    group = job(world, "leave")
    assert ran(world, group).ready is True
    wait_for(lambda: world.shim(group) is None)
    assert list(world.processes()) == []
    assert ended(world).ready is True


def test_outcome_is_known_to_a_control_plane_that_was_away(world: World) -> None:
    """Nobody looked when it ended, and the machine was restarted since."""
    group = job(world, "3")
    ran(world, group)
    wait_for(lambda: world.shim(group) is None)
    path = world.instance_folder(group) / plans.STATE
    path.write_text(json.dumps({**json.loads(path.read_text()), "boot": "another"}), encoding="utf-8")
    world.runtime = world.new_runtime()
    world.runtime.apply(group, key="k")
    seen = ended(world)
    assert (seen.ready, seen.exit) == (False, "exit status 3")


def test_job_whose_shim_was_killed_runs_anew(world: World) -> None:
    """Its outcome could not be known: it is shown as not run, the old process is ended, and it runs again."""
    group = job(world, "wait")
    world.runtime.apply(group, key="k")
    first = process(world)
    world.kill_shim(group)
    cut = world.instance()
    assert (cut.state, cut.ready, cut.pid) == (InstanceState.EXITED, None, None)
    assert cut.exit == "its shim was killed before its end"
    world.runtime.apply(group, key="k")
    again = world.instance()
    assert (again.state, again.ready) == (InstanceState.RUNNING, None)
    assert again.pid != first
    assert not alive(first)
    assert [line.split()[0] for line in lines(world, group)].count("job") <= 2


def test_job_that_a_reboot_has_cut_off_runs_anew(world: World) -> None:
    """A process of another boot is no outcome."""
    group = job(world, "wait")
    world.runtime.apply(group, key="k")
    pid = process(world)
    world.kill_shim(group)
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not alive(pid))
    path = world.instance_folder(group) / plans.STATE
    path.write_text(json.dumps({**json.loads(path.read_text()), "boot": "another"}), encoding="utf-8")
    cut = world.instance()
    assert (cut.state, cut.ready) == (InstanceState.EXITED, None)
    assert cut.exit == "the machine was restarted before its end"
    world.runtime.apply(group, key="k")
    assert world.instance().state is InstanceState.RUNNING


def test_job_is_killed_when_its_time_is_over(world: World) -> None:
    """Longer is failed, and nothing of it goes on."""
    group = job(world, "wait", verify=model.Verify(run=("x",), timeout_s=0.5))
    seen = ran(world, group)
    assert (seen.ready, seen.exit) == (False, "did not end within 0.5 s")
    wait_for(lambda: not list(world.processes()))


def test_job_that_cannot_be_started_has_failed(world: World) -> None:
    """That is its outcome, in the words of its command."""
    group = job(world, "0", run=("./bin/missing",))
    seen = ran(world, group)
    assert (seen.ready, seen.exit) == (False, "cannot start ./bin/missing: no such file in the package")


def test_job_that_is_killed_says_by_what(world: World) -> None:
    """An end by a signal is a failure."""
    group = job(world, "wait")
    world.runtime.apply(group, key="k")
    os.kill(process(world), signal.SIGKILL)
    seen = ended(world)
    assert (seen.ready, seen.exit) == (False, "killed by SIGKILL")


def test_output_of_a_job_is_kept_after_its_removal(world: World) -> None:
    """Like that of any other group."""
    group = job(world)
    ran(world, group)
    world.runtime.remove(group.id, key="k")
    wait_for(world.gone)
    assert [line.split()[0] for line in lines(world, group)] == ["job", "tidegate:"]


# --- smoke checks ------------------------------------------------------------------------------------


def test_paths_are_asked_in_order_before_the_command(
    world: World, server: Callable[[dict[str, int]], tuple[int, list[str]]]
) -> None:
    """Each once, with a line of its own; a redirect passes and is not followed."""
    port, asked = server({"/": 200, "/old": 302, "/gone": 410})
    paths = (
        model.Smoke(service="web", path="/"),
        model.Smoke(service="web", path="/old"),
        model.Smoke(service="web", path="/gone", status=410),
    )
    group = asking(world, port, *paths)
    seen = ran(world, group)
    assert (seen.ready, seen.exit) == (True, "exit status 0")
    assert asked == ["/", "/old", "/gone"]
    words = [line.rsplit(" in ", 1)[0] for line in lines(world, group)]
    smokes = [f"tidegate: smoke GET {said}" for said in ("/ 200", "/old 302", "/gone 410")]
    assert words[:3] == smokes
    assert words[3].startswith("job ")


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/cart", 200, "GET /cart answered 500 instead of 200"),
        ("/cart", None, "GET /cart answered 500 instead of 2xx or 3xx"),
        ("/", 204, "GET / answered 200 instead of 204"),
    ],
)
def test_path_that_answers_otherwise_fails_the_job(
    world: World,
    server: Callable[[dict[str, int]], tuple[int, list[str]]],
    path: str,
    status: int | None,
    said: str,
) -> None:
    """The outcome names path and statuses; the command and later paths are never reached."""
    port, asked = server({"/": 200, "/cart": 500})
    checks = (model.Smoke(service="web", path=path, status=status), model.Smoke(service="web", path="/later"))
    group = asking(world, port, *checks)
    seen = ran(world, group)
    assert (seen.ready, seen.exit, seen.crashes) == (False, said, 0)
    assert asked == [path]
    assert not any(line.startswith("job") for line in lines(world, group))


def test_smoke_checks_alone_are_a_job(
    world: World, server: Callable[[dict[str, int]], tuple[int, list[str]]]
) -> None:
    """Without a command the paths are all there is."""
    port, _ = server({"/": 200})
    seen = ran(world, asking(world, port, model.Smoke(service="web", path="/"), what=""))
    assert (seen.ready, seen.exit) == (True, "exit status 0")


def test_nobody_who_answers_fails_the_job(world: World) -> None:
    """The words are those of the connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    seen = ran(world, asking(world, port, model.Smoke(service="web", path="/cart")))
    assert (seen.ready, seen.exit) == (False, "GET /cart: connection refused")


def test_service_without_an_address_fails_the_job(world: World) -> None:
    """A configured variable of that name leads nowhere else."""
    group = asking(world, 1, model.Smoke(service="web", path="/"))
    links = (("TIDEGATE_URL", "x"), ("WEB_URL", "http://169.254.169.254:80"))
    seen = ran(world, job(world, environment=links, verify=group.verify))
    assert (seen.ready, seen.exit) == (False, "GET / could not be asked: web has no address")


def test_hostile_path_is_one_request(
    world: World, server: Callable[[dict[str, int]], tuple[int, list[str]]]
) -> None:
    """Line ends and control characters are sent as %XX, and never printed."""
    port, asked = server({})
    group = asking(world, port, model.Smoke(service="web", path="/a\r\nX: y \x1b[31m"))
    seen = ran(world, group)
    assert asked == ["/a%0D%0AX:%20y%20%1B%5B31m"]
    assert seen.exit == "GET /a%0D%0AX:%20y%20%1B%5B31m answered 404 instead of 2xx or 3xx"
    assert all(line.isprintable() for line in lines(world, group))


def test_answer_that_trickles_in_is_cut_off(capfd: pytest.CaptureFixture[str]) -> None:
    """A check takes no longer than its time, whatever comes in the meantime."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stop = threading.Event()

        def trickle() -> None:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):
                while not stop.wait(0.02):
                    connection.sendall(b"H")

        thread = threading.Thread(target=trickle)
        thread.start()
        check = plans.SmokeCheck(service="web", port=listener.getsockname()[1], path="/", status=None)
        assert smoke.failure([check], timeout_s=0.3) == "GET /: no answer within 0.3 s"
        stop.set()
        thread.join()
    assert "smoke GET / no answer within 0.3 s" in capfd.readouterr().out


def test_paths_are_asked_as_the_apps_user(
    separated: World, server: Callable[[dict[str, int]], tuple[int, list[str]]]
) -> None:
    """A user that can read nothing of ours asks them, and runs the command."""
    port, asked = server({"/": 200})
    group = asking(separated, port, model.Smoke(service="web", path="/"))
    seen = ran(separated, group)
    assert (seen.ready, seen.exit) == (True, "exit status 0")
    assert asked == ["/"]


@pytest.mark.skipif("memory" not in enforced(), reason="no control group for memory may be made here")
def test_memory_that_runs_out_is_named(world: World) -> None:
    """Where the kernel counts it, the outcome says why it was killed."""
    seen = ran(world, job(world, "eat", limits=model.Limits(memory_bytes=64 << 20)))
    assert (seen.ready, seen.exit) == (False, "killed by SIGKILL (out of memory)")
