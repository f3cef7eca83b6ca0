"""Answers of HAProxy: whole ones have a meaning, all others are errors."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.core import model, sequential
from tidegate.core.counters import USER_SHARDS
from tidegate.errors import RouterError
from tidegate.haproxy import config, readback

KEY = model.EnvironmentKey(app="shop", environment="test")

INFO = "Name: HAProxy\nVersion: 2.8.25\nPid: 77\nStart_time_sec: 1000"
VARIABLE = f"{config.structure_variable(KEY)}: type=str value=<abc>"
MAPS = (
    "0x1 shop.example.com shop.test.web\n0x2 b.example.com other.test.web",
    "0x1 shop.test. 0=:5:-:0:-:-",
    "",
    "",
)
SERVERS = (
    "1\n# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight"
    " srv_check_result srv_port\n"
    "5 shop.test.web.0 1 p1-0 127.0.0.1 2 0 1 3 9001\n"
    "6 other.test.web.0 1 p1-0 127.0.0.1 2 0 1 3 9002"
)
STATISTICS = (
    "# pxname,svname,scur,bin,bout,econ,srv_abrt,type"
    ",hrsp_1xx,hrsp_2xx,hrsp_3xx,hrsp_4xx,hrsp_5xx,hrsp_other\n"
    "shop.test.web.0,p1-0,4,0,0,0,0,2,0,5,0,0,3,1\n"
    "shop.test.web.0,BACKEND,4,70,80,9,7,1,1,2,3,4,5,6\n"
    "shop.test.web.1,BACKEND,0,0,0,0,0,1,0,0,0,0,0,0\n"
    "other.test.web.0,p1-0,1,0,0,0,0,2,0,0,0,0,0,0"
)
WHOLE = (INFO, VARIABLE, *MAPS, SERVERS, STATISTICS)
TABLE = (
    "# table: shop.test/web.0, type: integer, size:512, used:4\n"
    "0x7f02: key=57 use=0 exp=0 shard=0 gpc0=3 gpc1=2\n"
    "0x7f01: key=255 use=1 exp=0 shard=0 gpc0=12 gpc1=0\n"
    "0x7f03: key=9 use=1 exp=0 shard=0 gpc0=0 gpc1=0\n"
    "0x7f04: key=0 use=0 exp=0 shard=0 gpc0=1 gpc1=0"
)
USERS = (
    "# table: shop.test/web.0.users, type: integer, size:40, used:4\n"
    "0x7f02: key=19 use=0 exp=0 shard=0 conn_cnt=4\n"
    "0x7f01: key=7 use=1 exp=0 shard=0 conn_cnt=4294967295\n"
    "0x7f03: key=9 use=1 exp=0 shard=0 conn_cnt=0\n"
    "0x7f04: key=0 use=0 exp=0 shard=0 conn_cnt=1"
)


def test_whole_answers_are_read() -> None:
    """Each part of a look is in its place, and other environments are left out."""
    look = readback.look(KEY, WHOLE)
    assert (look.generation, look.fingerprint) == ("77@1000", "abc")
    assert look.route == model.Route(stable=0, fence=5)
    assert [(one.path, one.port, one.ready, one.running, one.sessions) for one in look.servers] == [
        ("shop.test.web.0/p1-0", 9001, True, True, 4)
    ]
    assert [(one.requests, one.errors) for one in look.servers] == [(9, 3)]
    assert look.counts["shop.test.web.0"] == readback.Count(
        classes=(1, 2, 3, 4, 5),
        other=6,
        connect_failures=9,
        unanswered=7,
        bytes_in=70,
        bytes_out=80,
        active=4,
    )
    assert set(look.counts) == {"shop.test.web.0", "shop.test.web.1"}
    assert look.entries["hosts.map"] == (("shop.example.com", "shop.test.web"),)


def test_unset_variable_is_no_structure() -> None:
    """A process that does not know the environment has no fingerprint for it."""
    assert readback.look(KEY, (INFO, "Variable not found.", *WHOLE[2:])).fingerprint is None


@given(st.integers(0, len(WHOLE) - 1), st.data())
def test_damaged_answers_are_never_half_read(part: int, data: st.DataObject) -> None:
    """An answer that was cut, or in which a piece was exchanged, is read as a whole or refused."""
    text = WHOLE[part]
    cut = data.draw(st.integers(0, len(text)))
    piece = data.draw(
        st.sampled_from(["", "\n", ",", " ", "x", "-1", "NaN", "²", "Unknown command", text[:7]])
    )
    damaged = (*WHOLE[:part], text[:cut] + piece, *WHOLE[part + 1 :])
    try:
        look = readback.look(KEY, damaged)
    except RouterError:
        return
    assert all(one.path == "shop.test.web.0/p1-0" and one.sessions >= 0 for one in look.servers)
    assert set(look.counts) <= {"shop.test.web.0", "shop.test.web.1"}


def measured(*, latencies: str = TABLE, users: str = USERS) -> readback.Look:
    """A look with these answers about the tables."""
    return readback.measured(KEY, readback.look(KEY, WHOLE), (latencies, users))


def test_tables_are_asked_of_slots_that_have_answered() -> None:
    """Two counters of 32 bits make a count; a cell that has not counted yet is left out; idle slots too."""
    commands = readback.table_commands(KEY, readback.look(KEY, WHOLE))
    assert commands == ("show table shop.test/web.0", "show table shop.test/web.0.users")
    look = measured()
    assert look.latencies == {"shop.test.web.0": ((0, 1), (57, 2 * 2**32 + 3), (255, 12))}
    assert look.user_errors == {"shop.test.web.0": ((0, 1), (7, 2**32 - 1), (19, 4))}


def test_slots_without_errors_are_not_asked_whose_they_were() -> None:
    """A good release costs no second table to be read."""
    good = (*WHOLE[:-1], STATISTICS.replace(",1,2,3,4,5,6", ",1,2,3,4,0,6"))
    look = readback.look(KEY, good)
    assert readback.table_commands(KEY, look) == ("show table shop.test/web.0",)
    found = readback.measured(KEY, look, (TABLE,))
    assert (len(found.latencies), found.user_errors) == (1, {})


def test_answers_about_other_tables_than_asked_are_refused() -> None:
    """One too few or too many would be read as another table's."""
    look = readback.look(KEY, WHOLE)
    for answers in ((), (TABLE,), (TABLE, USERS, USERS), (USERS, TABLE)):
        with pytest.raises(RouterError):
            readback.measured(KEY, look, answers)


def test_process_without_tables_has_measured_nothing() -> None:
    """HAProxy with the configuration of an older Tidegate is seen, without latencies and whose errors."""
    assert measured(users="No such table").user_errors == {"shop.test.web.0": ()}
    assert measured(latencies="No such table").latencies == {"shop.test.web.0": ()}


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "nonsense",
        TABLE.replace("web.0", "web.1"),
        TABLE.replace("integer", "string"),
        TABLE.replace("key=255", "key=256"),
        TABLE.replace("key=255", "key=57"),
        TABLE.replace("key=255", "key=-1"),
        TABLE.replace("gpc0=12", "gpc0=-12"),
        TABLE.replace("gpc0=12", "gpc0=4294967296"),
        TABLE.replace("gpc0=12", "gpc0=²"),
        TABLE.replace(" gpc1=2", ""),
        TABLE.replace(" gpc1=2", " gpc1=2 gpc2=1"),
        TABLE.replace("use=1", "use=x"),
        TABLE.replace("\n0x7f04", "\n\n0x7f04"),
        TABLE[:-1],
        USERS,
    ],
)
def test_hostile_tables_are_refused(answer: str) -> None:
    """A row of another table, of no bucket, of a bucket once more, or cut is never a count."""
    with pytest.raises(RouterError):
        measured(latencies=answer)


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "nonsense",
        USERS.replace(".users", ""),
        USERS.replace("key=19", "key=20"),
        USERS.replace("key=19", "key=7"),
        USERS.replace("key=19", "key=-1"),
        USERS.replace("conn_cnt=4294967295", "conn_cnt=4294967296"),
        USERS.replace("conn_cnt=4\n", "conn_cnt=-4\n"),
        USERS.replace("conn_cnt=4\n", "conn_cnt=²\n"),
        USERS.replace("conn_cnt=4\n", "gpc0=4 gpc1=0\n"),
        USERS.replace("conn_cnt=4\n", "conn_cnt=4 conn_cur=0\n"),
        USERS[:-1],
        TABLE,
    ],
)
def test_hostile_tables_of_users_are_refused(answer: str) -> None:
    """Nobody is in a twenty-first part, or twice in one."""
    with pytest.raises(RouterError):
        measured(users=answer)


@given(st.integers(0, len(TABLE)), st.text(max_size=12))
def test_damaged_tables_are_refused_or_have_a_meaning(cut: int, piece: str) -> None:
    """Whatever follows a part of a table, what is read is counts of buckets."""
    try:
        cells = dict(measured(latencies=TABLE[:cut] + piece).latencies["shop.test.web.0"])
    except RouterError:
        return
    assert all(0 <= bucket < sequential.BUCKETS and count > 0 for bucket, count in cells.items())


@given(st.integers(0, len(USERS)), st.text(max_size=12))
def test_damaged_tables_of_users_are_refused_or_have_a_meaning(cut: int, piece: str) -> None:
    """Whatever follows a part of a table, what is read is counts of parts."""
    try:
        cells = dict(measured(users=USERS[:cut] + piece).user_errors["shop.test.web.0"])
    except RouterError:
        return
    assert all(0 <= shard < USER_SHARDS and 0 < count < 2**32 for shard, count in cells.items())


@pytest.mark.parametrize("answer", ["nonsense", "0x1", "0x1 key", "1 key value"])
def test_lines_that_are_no_map_entries_are_refused(answer: str) -> None:
    """A map's line has an address, a key and a value."""
    with pytest.raises(RouterError):
        readback.map_entries(answer)


def test_streams_are_read() -> None:
    """The list of streams gives each one's id and server."""
    line = "0x29b5: proto=tcpv4 src=127.0.0.1:1 fe=public be=shop.test.web.0 srv=p1-0 ts=00 age=0s"
    assert readback.streams(line) == (readback.Stream(id="0x29b5", path="shop.test.web.0/p1-0"),)
    with pytest.raises(RouterError):
        readback.streams("nonsense")
