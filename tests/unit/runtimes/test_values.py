"""What the process runtime computes: environments, ports, waits, words, control groups, users."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate import errors, revisions
from tidegate.core import model
from tidegate.runtimes import accounts, cgroups, instances, launching, procfs, shim
from tidegate.runtimes import plan as plans

KEY = model.EnvironmentKey(app="shop", environment="production")


def group(**changes: object) -> model.InstanceGroup:
    fields: dict[str, object] = {
        "key": KEY,
        "placement": 7,
        "service": "api",
        "release": 42,
        "digest": "sha256:00",
        "run": ("./bin/api", "--port", "$PORT"),
        "serves": True,
        "check": model.Check(kind=model.CheckKind.COMMAND, command=("true",)),
        "instances": 2,
        "environment": (("PASSWORD", "hunter2"),),
        "limits": model.Limits(memory_bytes=1, cpus=0.5),
        "grace_s": 3.0,
    }
    return model.InstanceGroup(**(fields | changes))  # type: ignore[arg-type]


# --- environment --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argument", "filled"),
    [
        ("--port=$PORT", "--port=8000"),
        ("${PORT}0", "80000"),
        ("$$PORT", "$PORT"),
        ("$UNKNOWN", "$UNKNOWN"),
        ("50$", "50$"),
        ("$EVIL", "$(reboot); $PORT"),
    ],
)
def test_arguments_are_filled_once_and_never_by_a_shell(argument: str, filled: str) -> None:
    """Names are replaced, values are not looked at again, and what is no name stays."""
    assert launching.fill([argument], {"PORT": "8000", "EVIL": "$(reboot); $PORT"}) == [filled]


def test_worker_has_no_port(tmp_path: Path) -> None:
    """PORT is set for instances that serve only."""
    layout = instances.Layout(tmp_path / "instances")
    assert "PORT" not in launching.environment(layout, group(), 0, None)
    assert launching.environment(layout, group(), 0, 20_001)["PORT"] == "20001"


# --- ports --------------------------------------------------------------------------------------------


def free_ports(count: int) -> range:
    """That many neighbouring ports on which nobody listens now."""
    for first in range(12_000, 19_000, count):
        if all(launching.port_is_free(port) for port in range(first, first + count)):
            return range(first, first + count)
    raise AssertionError("no free ports")


def test_ports_are_given_out_in_turn(tmp_path: Path) -> None:
    """A port that was given back is the last to be given out again; those of others are left out."""
    candidates, last = free_ports(4), tmp_path / "port"
    taken = frozenset({candidates[2]})
    last.write_text(str(candidates[3]))
    chosen = [launching.choose_port(last, candidates, taken) for _ in range(4)]
    assert chosen == [candidates[0], candidates[1], candidates[3], candidates[0]]


def test_control_planes_begin_at_places_of_their_own(tmp_path: Path) -> None:
    """First ports of different folders differ: two fresh control planes rarely choose the same."""
    candidates = range(20_000, 32_768)
    first = [
        launching.choose_port(tmp_path / f"{number}.port", candidates, frozenset()) for number in range(20)
    ]
    assert len(set(first)) > 15
    assert max(first) < 21_100
    (tmp_path / "0.port").unlink()
    assert launching.choose_port(tmp_path / "0.port", candidates, frozenset()) == first[0]


def test_port_on_which_a_stranger_listens_is_passed_over(tmp_path: Path) -> None:
    """What is in use, on loopback or everywhere, is not chosen; when nothing is left, it is said."""
    candidates = free_ports(2)
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", candidates[0]))
        one.listen()
        assert launching.choose_port(tmp_path / "port", candidates, frozenset()) == candidates[1]
        other.bind(("0.0.0.0", candidates[1]))
        other.listen()
        with pytest.raises(errors.PortTakenError, match="No port from"):
            launching.choose_port(tmp_path / "port", candidates, frozenset())


# --- the shim -----------------------------------------------------------------------------------------


def test_back_off_doubles_up_to_half_a_minute() -> None:
    """0.2 s after the first crash in a row, 30 s at most, also after very many."""
    assert [shim.backoff_s(streak) for streak in (1, 2, 3, 8, 9, 10_000)] == [0.2, 0.4, 0.8, 25.6, 30.0, 30.0]


@pytest.mark.parametrize(
    ("status", "out_of_memory", "words"),
    [
        (0, False, "exit status 0"),
        (3 << 8, False, "exit status 3"),
        (9, False, "killed by SIGKILL"),
        (9, True, "killed by SIGKILL (out of memory)"),
        (11 | 0x80, False, "killed by SIGSEGV"),
        (40, False, "killed by signal 40"),
    ],
)
def test_end_is_told_in_words(status: int, out_of_memory: bool, words: str) -> None:
    """A wait status becomes a phrase that fits every message."""
    assert shim.describe_end(status, out_of_memory=out_of_memory) == words


def test_shim_needs_the_standard_library_only() -> None:
    """It runs without site-packages, so that an upgrade of those cannot break what is running."""
    code = "import sys, runpy; sys.argv[1:] = ['check']; runpy.run_path(sys.argv[0], run_name='__main__')"
    code = f"import sys; sys.argv = [{str(launching.SHIM)!r}, 'check']\n{code}\n"
    code += "print([name for name in sys.modules if name.startswith('tidegate')])\n"
    code += (
        "print(any('site-packages' in (getattr(one, '__file__', '') or '') for one in sys.modules.values()))"
    )
    command = [sys.executable, "-I", "-S", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    names, foreign = done.stdout.splitlines()
    ours = {"tidegate", "tidegate.runtimes"} | {
        f"tidegate.runtimes.{one}" for one in ("output", "plan", "procfs", "secret_files", "start")
    }
    assert set(json.loads(names.replace("'", '"'))) == ours
    assert foreign == "False"


def test_smoke_checks_need_the_standard_library_only() -> None:
    """They run in the shim's child, as a user who may not even read the package's dependencies."""
    source = launching.SHIM.parents[2]
    code = f"import sys; sys.path.append({str(source)!r}); from tidegate.runtimes import smoke\n"
    code += (
        "print(any('site-packages' in (getattr(one, '__file__', '') or '') for one in sys.modules.values()))"
    )
    command = [sys.executable, "-I", "-S", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.strip() == "False"


def test_shim_refuses_a_plan_of_another_release() -> None:
    """A control plane that was upgraded on disk while it ran is told to restart; nothing is started."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(launching.SHIM)],
        input=json.dumps({"version": plans.VERSION + 1}),
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    answer = json.loads(done.stdout)
    assert answer["ok"] is False
    assert "restart it" in answer["error"]


def test_plan_of_the_version_before_is_read() -> None:
    """What was started before an upgrade is asked on whether it is ready, in its own environment."""
    earlier = {"version": 1, "name": "shop.production.7.api.0", "environment": {"COLOUR": "blue"}}
    found = plans.readable(json.dumps(earlier).encode())
    assert found is not None
    assert (found["environment"], found["hidden"], found["job"]) == ({"COLOUR": "blue"}, [], None)
    assert found["version"] == plans.VERSION


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"version": 0}', b'{"version": "1"}', b"\xff"])
def test_plan_that_is_none_is_not_used(content: bytes) -> None:
    """Of a later version or damaged: nobody guesses what it might mean."""
    assert plans.readable(content) is None
    assert plans.readable(json.dumps({"version": plans.VERSION + 1}).encode()) is None


# --- state and spec -------------------------------------------------------------------------------------


def test_state_is_read_back_and_keeps_its_size(tmp_path: Path) -> None:
    """The largest state fits the size that the file always has."""
    state = plans.fresh_state("b" * 36)
    state |= {"recent": [123456789.123] * plans.RECENT_MAX, "exit": "x" * 1000, "pid": 2**22, "start": 2**60}
    plans.write_state(str(tmp_path), state)
    assert plans.read_state(str(tmp_path)) == state
    assert (tmp_path / plans.STATE).stat().st_size == plans.STATE_BYTES


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
FIELDS = ("boot", "pid", "start", "crashes", "recent", "streak", "exit", "group", "port")


@settings(max_examples=40)
@given(st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=len(FIELDS)))
def test_file_with_other_values_raises_nothing(
    tmp_path_factory: pytest.TempPathFactory, content: dict[str, object]
) -> None:
    """Whatever JSON stands in a state or spec file, reading it gives a value or nothing."""
    folder = tmp_path_factory.mktemp("damaged")
    for name in (plans.STATE, "spec.json"):
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    state = plans.read_state(str(folder))
    assert state is None or isinstance(state["crashes"], int)
    assert instances.read_spec(folder) is None


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b'{"boot": 1}', b'{"group": {}, "port": 1}', b"\xff"]
)
def test_damaged_file_is_read_as_nothing(tmp_path: Path, content: bytes) -> None:
    """A state or spec that was cut off or written over raises nothing."""
    (tmp_path / plans.STATE).write_bytes(content)
    (tmp_path / "spec.json").write_bytes(content)
    assert plans.read_state(str(tmp_path)) is None
    assert instances.read_spec(tmp_path) is None


def test_spec_is_read_back_without_the_environment(tmp_path: Path) -> None:
    """All of a group but its configuration is kept."""
    instances.write_spec(tmp_path, group(), 20_001)
    found = instances.read_spec(tmp_path)
    assert found == instances.Spec(group=group(environment=()), port=20_001)
    assert b"hunter2" not in (tmp_path / "spec.json").read_bytes()


def test_spec_of_a_job_with_secrets_is_read_back(tmp_path: Path) -> None:
    """Its checks, its time and the versions of its secrets are kept: a later look knows that it is a job."""
    smoke = (model.Smoke(service="web", path="/cart", status=200), model.Smoke(service="api", path="/"))
    job = group(
        environment=(),
        secrets=(model.SecretVersion(name="KEY", version=3, as_file=True),),
        admission="sealed",
        verify=model.Verify(run=("./smoke",), smoke=smoke, timeout_s=9.0),
    )
    instances.write_spec(tmp_path, job, None)
    assert instances.read_spec(tmp_path) == instances.Spec(group=job, port=None)


def test_spec_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    """Groups that run while Tidegate is upgraded have neither secrets nor checks."""
    instances.write_spec(tmp_path, group(environment=()), 20_001)
    content = json.loads((tmp_path / "spec.json").read_bytes())
    for later in ("secrets", "admission", "verify"):
        del content["group"][later]
    (tmp_path / "spec.json").write_text(json.dumps(content), encoding="utf-8")
    assert instances.read_spec(tmp_path) == instances.Spec(group=group(environment=()), port=20_001)


def test_state_of_an_earlier_version_has_no_outcome(tmp_path: Path) -> None:
    """A shim that was started before an upgrade goes on to write what it knows."""
    earlier = {key: value for key, value in plans.fresh_state("boot").items() if key != "passed"}
    (tmp_path / plans.STATE).write_text(json.dumps(earlier), encoding="utf-8")
    assert plans.read_state(str(tmp_path)) == plans.fresh_state("boot")


def test_crashes_of_another_boot_or_long_ago_are_not_recent() -> None:
    """Only those of this boot and of the last five minutes count."""
    state = plans.fresh_state("this")
    state["recent"] = [10.0, 650.0, 900.0]
    assert plans.crashes_since(state, "this", 940.0) == 2
    assert plans.crashes_since(state, "another", 940.0) == 0


@pytest.mark.parametrize(
    "name", ["a.b.1", "a.b.c.d", "../b.1.d", "a.b.1.d/..", "a.b.1.d.e", "a.b.-1.d", "a.b.1.d\n"]
)
def test_only_ids_of_groups_are_taken_apart(name: str) -> None:
    """What could leave the folder is no id."""
    with pytest.raises(ValueError):
        instances.parts(name)


def test_revisions_grow_also_when_their_file_is_lost(tmp_path: Path) -> None:
    """A new sequence begins above the old one, after a restart and after the loss of the file."""
    path = tmp_path / "revision"
    first = revisions.Revisions(path)
    numbers = [first.next(), first.next(), revisions.Revisions(path).next()]
    assert numbers == sorted(set(numbers))
    path.write_text("what?")
    assert revisions.Revisions(path).next() > 1_600_000_000_000


# --- control groups -------------------------------------------------------------------------------------


def detect(tmp_path: Path, mounts: str, membership: str) -> cgroups.Hierarchies:
    (tmp_path / "mounts").write_text(mounts)
    (tmp_path / "membership").write_text(membership)
    return cgroups.detect(mounts=str(tmp_path / "mounts"), membership=str(tmp_path / "membership"))


def test_unified_hierarchy_is_used_below_our_own_group(tmp_path: Path) -> None:
    """With v2 the limits are files of one group, which is made below the one that we are in."""
    own = tmp_path / "cgroup" / "system.slice" / "tidegate.service"
    for folder in (own, own / "tidegate"):
        folder.mkdir(parents=True)
        (folder / "cgroup.controllers").write_text("cpu io memory pids")
    found = detect(
        tmp_path, f"cgroup2 {tmp_path}/cgroup cgroup2 rw 0 0\n", "0::/system.slice/tidegate.service\n"
    )
    assert found.unified == own / "tidegate"
    complete = cgroups.Hierarchies(
        unified=own, unified_controllers=frozenset({"memory", "cpu", "pids"}), legacy=()
    )
    limits = model.Limits(memory_bytes=1 << 20, cpus=1.5, processes=9)
    assert complete.groups("one", limits) == [
        {
            "path": str(own / "one"),
            "values": {
                "memory.max": "1048576",
                "memory.oom.group": "1",
                "cpu.max": "150000 100000",
                "pids.max": "9",
            },
        }
    ]
    assert complete.unenforced(limits) == ()


def test_legacy_hierarchies_are_used_one_by_one(tmp_path: Path) -> None:
    """With v1 each limit has a group of its own; memory always, because it counts kills."""
    for controller in ("memory", "cpu"):
        (tmp_path / controller / "box").mkdir(parents=True)
    mounts = "".join(f"cgroup {tmp_path}/{one} cgroup rw,{one} 0 0\n" for one in ("memory", "cpu"))
    found = detect(tmp_path, mounts, "2:memory:/box\n1:cpu:/box\n0::/\n")
    assert found.unified is None
    assert found.groups("one", model.Limits()) == [
        {"path": f"{tmp_path}/memory/box/tidegate/one", "values": {}}
    ]
    limits = model.Limits(memory_bytes=5, cpus=0.001, processes=3)
    values = [one["values"] for one in found.groups("one", limits)]
    assert values == [
        {"memory.limit_in_bytes": "5"},
        {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "1000"},
    ]
    assert found.unenforced(limits) == ("number of processes",)


def test_machine_without_control_groups_enforces_nothing(tmp_path: Path) -> None:
    """No mount, no group, and every limit is named as not enforced."""
    found = detect(tmp_path, "", "")
    assert found.groups("one", model.Limits(memory_bytes=1)) == []
    assert found.unenforced(model.Limits(memory_bytes=1, cpus=1.0)) == ("memory", "CPU")


# --- users ----------------------------------------------------------------------------------------------


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives out users")
def test_users_are_kept_and_never_shared(tmp_path: Path) -> None:
    """Each app and environment has a number of its own in the range, the same one for ever."""
    register = tmp_path / "users.json"
    keys = [model.EnvironmentKey(app=f"app{number}", environment="test") for number in range(300)]
    first = [accounts.account("auto", key, register) for key in keys]
    numbers = {one.user for one in first if one}
    assert len(numbers) == 300
    assert min(numbers) >= accounts.FIRST_USER
    assert max(numbers) <= accounts.LAST_USER
    assert [accounts.account("auto", key, register) for key in reversed(keys)] == first[::-1]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives out users")
def test_users_of_two_control_planes_differ(tmp_path: Path) -> None:
    """Apps of the same name under two control planes are strangers, also to what runs already."""
    registers = [tmp_path / f"{number}.json" for number in range(8)]
    given = {accounts.account("auto", KEY, register) for register in registers}
    assert len(given) == len(registers)
    assert os.geteuid() in procfs.owners()


def test_unknown_user_is_refused(tmp_path: Path) -> None:
    """A name that this machine does not know is said, with what to do."""
    with pytest.raises(errors.MachineError, match="no user 'nobody-has-this-name'"):
        accounts.account("nobody-has-this-name", KEY, tmp_path / "users.json")


def test_damaged_register_of_users_is_an_error(tmp_path: Path) -> None:
    """Numbers are not given out anew when it is not known which are in use."""
    if os.geteuid() != 0:
        pytest.skip("only root gives out users")
    (tmp_path / "users.json").write_text("{")
    with pytest.raises(errors.StorageError, match="cannot be read"):
        accounts.account("auto", KEY, tmp_path / "users.json")
