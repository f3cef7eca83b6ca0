"""Answers of HAProxy: whole ones have a meaning, all others are errors."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.core import model
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
    "# pxname,svname,scur,bin,bout,econ,type,hrsp_1xx,hrsp_2xx,hrsp_3xx,hrsp_4xx,hrsp_5xx,hrsp_other\n"
    "shop.test.web.0,p1-0,4,0,0,0,2,0,5,0,0,3,1\n"
    "shop.test.web.0,BACKEND,4,70,80,9,1,1,2,3,4,5,6\n"
    "other.test.web.0,p1-0,1,0,0,0,2,0,0,0,0,0,0"
)
WHOLE = (INFO, VARIABLE, *MAPS, SERVERS, STATISTICS)


def test_whole_answers_are_read() -> None:
    """Each part of a look is in its place, and other environments are left out."""
    look = readback.look(KEY, WHOLE)
    assert (look.generation, look.fingerprint) == ("77@1000", "abc")
    assert look.route == model.Route(stable=0, fence=5)
    assert [(one.path, one.port, one.ready, one.running, one.sessions) for one in look.servers] == [
        ("shop.test.web.0/p1-0", 9001, True, True, 4)
    ]
    assert [(one.requests, one.errors) for one in look.servers] == [(9, 3)]
    assert look.counts == {
        "shop.test.web.0": readback.Count(
            classes=(1, 2, 3, 4, 5), other=6, connect_failures=9, bytes_in=70, bytes_out=80, active=4
        )
    }
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
    assert set(look.counts) <= {"shop.test.web.0"}


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
