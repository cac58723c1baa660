"""The runner of benchmarks: what it chooses, computes, writes and draws; and one tiny run of it from end to end."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench import docs, machine
from bench.axes import AXES, Point, select
from bench.configuration import tabi_configuration
from bench.faithful import fault_of
from bench.goals import GOALS, judge
from bench.load import Target, build, compiler
from bench.peers import Peer, Setup, known_peers, tabi_variant
from bench.places import Place
from bench.plot import plot
from bench.report import markdown_axis, markdown_goals, table
from bench.results import PointResult, Results, spread
from bench.runs import Bench, Outcome
from helpers.pages import ROOT
from helpers.programs import need
from tabi.config.load import load_text

CONNECTIONS, POINT_32 = next((axis, point) for axis in AXES for point in axis.points if point.name == "32")
PROVENANCE = {
    "date": "2026-11-21 12:00 UTC", "processor": "some", "cores": 2, "memory_gib": 4.0, "load": 0.1, "kernel": "6.18",
    "congestion_control": "cubic", "tcp_rmem": "", "tcp_wmem": "", "python": "3.11", "versions": {"hev": "2.13"},
    "place": "proxy on core 0", "repeat": 3, "seconds": 1.0,
}  # fmt: skip


def outcome(*figures: float) -> Outcome:
    return Outcome(runs=[{"cpu_us_per_connection": one, "per_s": 9000.0, "p50_us": 3 * one} for one in figures])


@pytest.fixture
def results() -> Results:
    """Connections, 32 at once: a limit, a peer that is quick and wrong, one that is right, and ours."""
    made = Results(
        kinds={"haproxy": "limit", "ss-local": "peer", "hev": "peer", "tabi": "ours"},
        faults={"ss-local": "loses an answer after a half-close", "hev": ""},
        notes={},
        missing={"3proxy": "build it"},
    )
    outcomes = {
        "haproxy": outcome(40, 41, 42),
        "ss-local": outcome(50, 50, 50),
        "hev": outcome(90, 80, 100),
        "tabi": outcome(45, 47, 45),
    }
    command = "make bench ARGS='--axis connections/32 --repeat 3'"
    made.points["connections/32"] = PointResult(command, PROVENANCE, outcomes)
    return made


def row(text: str, name: str) -> list[str]:
    return next(line for line in text.splitlines() if line.split()[:1] == [name]).split()


def test_medians_spreads_and_ratios_stand_in_the_table(results: Results) -> None:
    shown = table(results)
    assert row(shown, "hev")[1:5] == ["90.0", "±11", "%", "1.00×"]
    assert row(shown, "tabi")[1:5] == ["45.0", "±2", "%", "0.50×"]  # to hev: ss-local is quicker, but wrong
    assert row(shown, "ss-local*")[4] == "0.56×"
    assert row(shown, "haproxy")[4] == "9,000"  # no ratio: it speaks no SOCKS
    assert "ss-local*: loses an answer after a half-close" in shown
    assert "3proxy is not here: build it" in shown
    assert "again: make bench ARGS='--axis connections/32 --repeat 3'" in shown


def test_a_proxy_that_failed_shows_why(results: Results) -> None:
    results.points["connections/32"].outcomes["hev"] = Outcome(errors=["tunnel 3 broke: closed\nmore"])
    assert "0/1, tunnel 3 broke: closed" in table(results)
    assert "| fails |" in markdown_axis(results, CONNECTIONS)


def test_failed_connections_are_told(results: Results) -> None:
    results.points["connections/32"].outcomes["hev"].runs[0] |= {"failed": 4, "unfinished": 1}
    assert "5 failed connections" in table(results)


@pytest.mark.parametrize(("values", "share"), [([10.0], 0.0), ([9.0, 10.0, 11.0], 0.1), ([0.0, 0.0], 0.0)])
def test_spread_is_half_the_range_by_the_median(values: list[float], share: float) -> None:
    assert spread(values) == pytest.approx(share)


def test_goals_are_held_against_the_peer_that_they_name(results: Results) -> None:
    judged = {one.text: one for one in judge(results)}
    text = "tabi, connections, 32 at once: CPU µs per connection ≤ 0.92 × ss-local"
    assert judged[text].bound == pytest.approx(46)
    assert judged[text].is_met
    results.points["connections/32"].outcomes["tabi"] = outcome(47, 47, 47)
    assert not next(one for one in judge(results) if one.text == text).is_met
    assert "**no**" in markdown_goals(results)


def test_goals_are_about_points_and_figures_that_there_are() -> None:
    for goal in GOALS:
        for axis, points in select(",".join(goal.where)):
            for point in points:
                assert goal.key in {figure.key for figure in (axis.first_of(point), *axis.others)}


def test_results_come_back_as_they_were_written(results: Results, tmp_path: Path) -> None:
    results.write(tmp_path / "new" / "result.json")
    assert Results.read(tmp_path / "new" / "result.json") == results


def test_what_is_published_has_figures_and_no_paths(results: Results) -> None:
    outcomes = results.points["connections/32"].outcomes
    outcomes["hev"].proxy = outcomes["hev"].line = "/home/somebody/hev"
    outcomes["hev"].errors = ["/home/somebody/hev ended"]
    outcomes["hev"].runs[0] |= {"cpu_us_per_connection": 90.123456789, "first_failure": "x", "label": "y"}
    results.missing["tabi"] = "/home/somebody/python has no tabi"
    short = results.brief()
    assert short.points["connections/32"].outcomes["hev"].runs[0]["cpu_us_per_connection"] == 90.1235
    assert len(short.points["connections/32"].outcomes["hev"].errors) == 1
    assert "somebody" not in repr(short)
    assert "first_failure" not in repr(short)


def test_results_of_other_axes_stay(results: Results) -> None:
    other = Results(kinds={"3proxy": "peer"}, points={"udp/64-1": PointResult("again", PROVENANCE)})
    results.update(other)
    assert set(results.points) == {"connections/32", "udp/64-1"}
    assert results.missing == {}


def test_plot_has_a_bar_for_each_proxy_by_its_figure(results: Results) -> None:
    tree = ElementTree.fromstring(plot(results, CONNECTIONS))
    space = "{http://www.w3.org/2000/svg}"
    bars = [one for one in tree.iter(f"{space}rect") if one.get("class") != "paper"]
    widths = [float(one.get("width", "")) for one in bars]
    assert [one.get("class") for one in bars] == ["limit", "peer", "peer", "ours"]
    assert widths[1] / widths[2] == pytest.approx(50 / 90, abs=0.01)
    words = [one.text for one in tree.iter(f"{space}text")]
    assert {"90.0", "tabi", "ss-local*", "32 at once"} <= set(words)


def test_page_is_written_between_its_marks(results: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "performance.md"
    page.write_text("before\n<!-- measured: begin -->\nold\n<!-- measured: end -->\nafter\n")
    monkeypatch.setattr(docs, "EXPLANATION", tmp_path)
    monkeypatch.setattr(docs, "RESULTS", tmp_path / "performance.json")
    monkeypatch.setattr(docs, "_PAGE", page)
    docs.write(results)
    docs.write(results)
    text = page.read_text()
    assert text.startswith("before\n<!-- measured: begin -->\n")
    assert text.endswith("<!-- measured: end -->\nafter\n")
    assert "old" not in text
    assert "| **tabi** | 45.0 ±2 % · 0.50× |" in text
    assert "make bench ARGS='--axis connections --repeat 3'" in text
    assert (tmp_path / "performance-connections.svg").exists()


def test_published_page_is_what_its_results_say() -> None:
    """Whoever changes the tables' form writes the page anew: `make bench ARGS='… --write-docs'`."""
    part = docs.measured_part(Results.read(docs.RESULTS))
    assert part in (ROOT / "docs" / "explanation" / "performance.md").read_text()


@pytest.mark.parametrize(
    ("wanted", "count"), [("connections", 8), ("connections/32,udp", 5), ("bulk/up-1,bulk/up-8", 2)]
)
def test_axes_and_points_are_chosen_by_name(wanted: str, count: int) -> None:
    assert sum(len(points) for _, points in select(wanted)) == count


@pytest.mark.parametrize("wanted", ["conections", "bulk/sideways"])
def test_unknown_axes_and_points_are_answered_with_those_that_there_are(wanted: str) -> None:
    with pytest.raises(ValueError, match=r"no .*; there are .*(udp|up-64)"):
        select(wanted)


@pytest.mark.parametrize("login", [False, True])
def test_tabi_is_measured_with_a_file_without_warnings_that_matter(login: bool) -> None:
    loaded = load_text(tabi_configuration("127.0.0.1:1080", login=login, rules=5), "tabi.toml")
    assert [one for one in loaded.warnings if "passwords in clear" not in str(one)] == []


@pytest.mark.parametrize("peer", [one for one in known_peers() if one.start], ids=lambda one: one.name)
def test_each_proxy_is_told_where_to_listen(peer: Peer, tmp_path: Path) -> None:
    setup = Setup(
        directory=tmp_path, host="127.0.0.1", port=31_234, login="password" in peer.does, target=12_000, targets=2
    )
    assert peer.start is not None
    words = peer.start(sys.executable if peer.kind == "ours" else peer.name, setup)
    told = " ".join(words) + "".join(file.read_text() for file in tmp_path.iterdir())
    assert "127.0.0.1" in told
    assert "31234" in told
    assert not setup.login or "alice" in told


def test_a_tiny_run_from_end_to_end(tmp_path: Path) -> None:
    """`make bench` as it is, but short: builds the generator, starts tabi, measures, prints, writes."""
    if compiler() is None:
        pytest.skip("needs a C compiler")
    file = tmp_path / "result.json"
    words = ["--axis", "connections/1", "--peers", "direct,tabi-pure", "--seconds", "0.2", "--repeat", "1"]
    done = subprocess.run(
        [sys.executable, "-m", "bench.run", *words, "--warmup", "0", "--json", str(file)],
        env={"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "PYTHONPATH": str(ROOT / "tests")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert row(done.stdout, "tabi-pure")[-1] == "1/1"
    result = Results.read(file).points["connections/1"]
    (ours,) = result.outcomes["tabi-pure"].runs
    assert ours["succeeded"] > 0
    assert ours["failed"] == 0
    assert ours["sessions_logged"] >= ours["succeeded"]
    assert ours["cpu_us_per_connection"] > 0
    assert "--axis connections/1 --peers direct,tabi-pure --seconds 0.2" in result.command
    assert json.loads(file.read_text())["faults"]["tabi-pure"] == ""  # half-closed transfers came through whole


@pytest.mark.parametrize(("name", "fault"), [("microsocks", "loses an answer after a half-close"), ("danted", "")])
def test_a_proxy_that_loses_bytes_is_found_out(name: str, fault: str) -> None:
    need(name)
    cc = compiler()
    if cc is None:
        pytest.skip("needs a C compiler")
    peer = next(one for one in known_peers() if one.program and one.program.endswith(f"/{name}"))
    program = build(cc)
    here = Place(proxy_core=None, load_core=None, user=None, is_apart=False)
    with Target(program, targets=1) as target:
        assert fault_of(Bench(program, target, here), peer) == fault


def test_decisions_stand_in_the_table_and_on_the_page(results: Results) -> None:
    results.decisions = [{"list": "exact names", "phase": "name", "median_us": 5.4321, "max_us": 1234.5}]
    results.decided_on = machine.describe([])
    assert row(table(results), "exact") == ["exact", "names", "name", "5.43", "1,234"]
    assert "| exact names | name | 5.43 | 1,234 |" in docs.measured_part(results)
    assert f"Measured {results.decided_on['date']}: " in docs.measured_part(results)
    assert results.brief().decisions == results.decisions
    assert results.brief().decided_on == results.decided_on


def test_decisions_are_an_axis_without_points() -> None:
    assert select("decisions") == []
    assert [axis.name for axis, _ in select("decisions,udp")] == ["udp"]


def test_a_variant_is_tabi_with_more_lines_in_its_last_rule(tmp_path: Path) -> None:
    *_, pure = tabi_variant("short", r'idle = "5 min"\n[tunnel]\nspin = false')
    assert pure.name == "tabi-pure-short"
    setup = Setup(
        directory=tmp_path, host="127.0.0.1", port=1080, login=False, target=12_000, targets=2, tail=pure.tail
    )
    pure.command(setup)
    written = tomllib.loads((tmp_path / "tabi.toml").read_text())
    (rule,) = written["rule"][-1:]
    assert written["tunnel"] == {"spin": False}
    assert rule["idle"] == "5 min"
    assert rule["name"] == "programs on this host"


def test_an_unknown_proxy_is_answered_with_those_that_there_are() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench.run", "--peers", "squid"],
        env={"PYTHONPATH": str(ROOT / "tests")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "no proxy 'squid'; there are direct, haproxy, microsocks" in done.stderr


def test_points_have_names_of_their_own() -> None:
    for axis in AXES:
        names = [point.name for point in axis.points]
        assert len(set(names)) == len(names)
        assert all(isinstance(point, Point) and point.label for point in axis.points)
    assert POINT_32.options == {"count": 32}
