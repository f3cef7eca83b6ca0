"""The first minutes with Tidegate: a manifest, help for editor and shell, starting and stopping."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.support import sample
from tests.support.tide import Tide, is_alive, wait_for
from tidegate import manifest

pytestmark = [pytest.mark.real, pytest.mark.slow]

WEB = f"""#!{sample.PYTHON}
import http.server, os

class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"It works.")

http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Page).serve_forever()
"""


def test_init_up_deploy_is_all_it_takes(idle: Tide) -> None:
    """In a folder with one program, `tide init`, `tide up` and `tide deploy` serve it."""
    folder = idle.root / "shop"
    (folder / "bin").mkdir(parents=True)
    program = folder / "bin" / "web"
    program.write_text(WEB)
    program.chmod(0o755)
    assert "tide deploy" in idle.ok("init", cwd=folder).out
    idle.ok("up")
    done = idle.ok("deploy", "test", cwd=folder)
    assert "r1 is live in shop/test" in done.out
    assert idle.get(host="test.localhost").body == b"It works."


def test_init_overwrites_nothing(idle: Tide) -> None:
    """A manifest that is there stays as it is, unless --force says otherwise."""
    (idle.root / "tidegate.yaml").write_text("mine")
    refused = idle.run("init")
    assert refused.status == 2
    assert (idle.root / "tidegate.yaml").read_text() == "mine"
    idle.ok("init", "--force")
    assert manifest.load(idle.root / "tidegate.yaml").app


def test_up_twice_is_once(tide: Tide) -> None:
    """A second `tide up` finds the control plane that runs, and says so."""
    pid = tide.pid
    done = tide.ok("up")
    assert f"runs already (pid {pid})" in done.out
    assert tide.pid == pid


def test_apps_go_on_while_the_control_plane_is_down(tide: Tide) -> None:
    """`tide down` stops the control plane alone; the next `tide up` finds the apps again and steers them."""
    web = sample.service("web", route="*", instances=2)
    app = tide.app("shop", services={"web": web}, environments={"production": {"strategy": "switch"}})
    app.open()
    pids, pid = app.pids(1), tide.pid
    assert "go on serving" in tide.ok("down").out
    assert not is_alive(pid)
    assert app.get().release == "r1"
    tide.up()
    assert app.pids(1) == pids
    app.open()
    assert app.get().release == "r2"
    assert "Everything is stopped" in tide.ok("down", "--all").out
    assert tide.processes() == {}


def test_foreground_control_plane_ends_with_a_signal(idle: Tide) -> None:
    """`tide up --foreground` stays in the terminal, and SIGTERM ends it as `tide down` would."""
    process = idle.begin("up", "--foreground")
    wait_for(lambda: idle.answers)
    idle.app("shop", services={"web": sample.service("web", route="*")}).open()
    process.terminate()
    out, _ = process.communicate(timeout=30)
    assert process.returncode in (0, -15)
    assert "The control plane is up" in out
    assert idle.get().release == "r1"
    idle.up()


def test_doctor_finds_a_healthy_machine(idle: Tide) -> None:
    """Doctor works without a control plane, tells what it looked at, and changes nothing that runs."""
    done = idle.run("doctor", "--json")
    findings = done.json
    assert {"name", "ok", "detail", "hint"} == findings[0].keys()
    assert all(finding["hint"] for finding in findings if not finding["ok"])
    assert done.status == (0 if all(finding["ok"] for finding in findings) else 1)
    assert idle.processes() == {}


def test_schema_is_one_that_editors_take(idle: Tide) -> None:
    """`tide schema` prints a JSON Schema that knows every key of the manifest."""
    schema = json.loads(idle.ok("schema").out)
    assert schema["$schema"].startswith("https://json-schema.org/")
    keys = {"app", "artifact", "services", "environments", "verify", "analysis", "migrations"}
    assert set(schema["properties"]) == keys


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script_is_for_the_shell(idle: Tide, shell: str) -> None:
    """`tide completion` prints a script that the shell takes."""
    script = idle.ok("completion", shell).out
    assert "_TIDE_COMPLETE" in script
    if shell == "bash":
        checked = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True, check=False)
        assert checked.returncode == 0, checked.stderr


def test_completion_completes_commands(idle: Tide) -> None:
    """The shell's question for words that begin with `roll` is answered with `rollback`."""
    idle.environ = {"_TIDE_COMPLETE": "bash_complete", "COMP_WORDS": "tide roll", "COMP_CWORD": "1"}
    done = subprocess.run(
        [str(idle.command)],
        env=idle.environ | {"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert "rollback" in done.stdout
