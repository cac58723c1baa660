"""``make bench``: measure tabi beside other proxies, and say what came of it.

    make bench                                      all axes, all proxies that are here
    make bench ARGS='--axis connections,bulk/up-8 --peers microsocks,tabi-pure --seconds 0.5'
    make bench ARGS='--write-docs'                  and put it into docs/explanation

The table goes to standard output, progress to standard error, everything to a JSON file.
"""

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from bench import decisions, docs, machine
from bench.axes import ALL_ECHO_PORTS, DECISIONS, Axis, Point, select
from bench.faithful import fault_of
from bench.load import GeneratorError, Target, build, compiler
from bench.peers import Peer, known_peers, tabi_at, tabi_variant
from bench.places import PlaceError, enter_namespace, place, raise_descriptor_limit
from bench.report import number, table
from bench.results import PointResult, Results
from bench.runs import TARGETS, Bench, ProxyError

__all__ = ["main"]

_RESULT = Path(__file__).parents[2] / "build" / "bench" / "result.json"
_LONGEST = 24 * 3600  # seconds after which the target ends, whatever happens to us
_WANTED_DESCRIPTORS = 19_000  # 9,000 tunnels and what a proxy has besides


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; gives the exit code."""
    options = _parser().parse_args(arguments)
    try:
        return _run(options)
    except (GeneratorError, PlaceError, ValueError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="make bench ARGS=…", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--axis", metavar="AXIS[/POINT],…", help="what to measure (default: all); --list tells what there is")
    add("--peers", metavar="NAME,…", help="which proxies (default: all that are here)")
    add("--seconds", type=float, default=1.0, help="that each run is measured (default: 1)")
    add("--warmup", type=float, default=0.3, help="seconds before (default: 0.3)")
    add("--repeat", type=int, default=3, help="runs of each proxy at each point, in turn (default: 3)")
    add(
        "--json", type=Path, default=_RESULT, metavar="FILE", help="where results go (default: build/bench/result.json)"
    )
    add(
        "--write-docs",
        action="store_true",
        help="put the results into docs/explanation/performance.md, and draw its plots",
    )
    add("--hev", default=os.environ.get("HEV"), metavar="PATH", help="hev-socks5-server (default: $HEV, else the PATH)")
    add(
        "--threeproxy", default=os.environ.get("THREEPROXY"), metavar="PATH", help="3proxy ($THREEPROXY, else the PATH)"
    )
    add(
        "--also",
        action="append",
        default=[],
        metavar="NAME=CHECKOUT",
        help="tabi of another checkout, as NAME and NAME-pure",
    )
    add(
        "--variant",
        action="append",
        default=[],
        metavar="NAME=LINES",
        help=r"tabi with more lines (\n between them) in the rule that lets through, as tabi-NAME and tabi-pure-NAME",
    )
    add("--cores", metavar="PROXY,LOAD", help="cores (default: two that are not threads of one)")
    add("--user", help="who programs run as, when root starts them (default: nobody; root: as root)")
    add("--realtime", action="store_true", help="SCHED_RR for all programs, on a busy machine (root)")
    add("--no-namespace", action="store_true", help="stay on the machine's own loopback, as everybody but root does")
    add(
        "--from",
        type=Path,
        dest="source",
        metavar="FILE",
        help="measure nothing: show results that were written before",
    )
    add("--list", action="store_true", help="list axes, points and proxies, and measure nothing")
    return parser


def _run(options: argparse.Namespace) -> int:
    if options.source:
        return _finish(Results.read(options.source), options)
    chosen = select(options.axis)
    known = known_peers(hev=options.hev, threeproxy=options.threeproxy)
    for pair in options.also:
        name, _, checkout = pair.partition("=")
        known += tabi_at(name, Path(checkout).resolve())
    for pair in options.variant:
        name, _, lines = pair.partition("=")
        known += tabi_variant(name, lines)
    if options.list:
        return _list(chosen, known)
    peers = _choose(known, options.peers)
    results = _beside_others(chosen, known, peers, options) if chosen else Results()
    if not options.axis or DECISIONS in options.axis.split(","):
        _say("decisions")
        results.decided_on = machine.describe([])
        results.decisions = decisions.measure()
    results.write(options.json)
    return _finish(results, options)


def _beside_others(
    chosen: Sequence[tuple[Axis, Sequence[Point]]],
    known: Sequence[Peer],
    peers: Sequence[Peer],
    options: argparse.Namespace,
) -> Results:
    """Make ready what all runs need, and run."""
    cc = compiler()
    if cc is None:
        raise ValueError("a C compiler is needed for the generator of load; as root: apt-get install gcc libc6-dev")
    generator = build(cc)
    here = place(cores=_cores(options.cores), user=options.user, is_apart=_go_apart(options), realtime=options.realtime)
    if (limit := raise_descriptor_limit()) < _WANTED_DESCRIPTORS:
        _say(f"no more than {limit} descriptors: the greatest points of `memory` will fail (ulimit -Hn)")
    _say(here.describe())
    with Target(
        generator, prefix=here.load_prefix(), targets=TARGETS, echo_ports=ALL_ECHO_PORTS, seconds=_LONGEST
    ) as target:
        bench = Bench(generator, target, here, seconds=options.seconds, warmup=options.warmup, told=_say)
        return _measure(bench, chosen, known, peers, options)


def _finish(results: Results, options: argparse.Namespace) -> int:
    print(table(results))
    if options.write_docs:
        docs.write(results)
        _say(f"written: {docs.EXPLANATION}")
    has_run = any(outcome.runs for one in results.points.values() for outcome in one.outcomes.values())
    return 0 if has_run or results.decisions else 1


def _measure(
    bench: Bench,
    chosen: Sequence[tuple[Axis, Sequence[Point]]],
    known: Sequence[Peer],
    peers: Sequence[Peer],
    options: argparse.Namespace,
) -> Results:
    results = Results()
    wanted = options.peers.split(",") if options.peers else None
    results.know(peer for peer in known if wanted is None or peer.name in wanted)
    able = _that_start(bench, peers, results)
    for axis, points in chosen:
        for point in points:
            bench.place.set_congestion_control(None)
            provenance = {
                **machine.describe(able), "place": bench.place.describe(), "repeat": options.repeat,
                "seconds": options.seconds,
            }  # fmt: skip
            if point.congestion:
                provenance["congestion_control"] = point.congestion
            outcomes = bench.compare(point, able, options.repeat)
            result = PointResult(_command(axis, point, able, options), provenance, outcomes)
            results.points[f"{axis.name}/{point.name}"] = result
            _say(_progress(axis, point, result))
            results.write(options.json)
    return results


def _that_start(bench: Bench, peers: Sequence[Peer], results: Results) -> list[Peer]:
    """Leave out what does not start, and find out what brings transfers through whole."""
    able = []
    for peer in peers:
        try:
            results.faults[peer.name] = fault_of(bench, peer)
        except ProxyError as error:
            results.missing[peer.name] = f"it does not start: {error}"
            _say(results.missing[peer.name])
        else:
            able.append(peer)
    return able


def _choose(known: Sequence[Peer], wanted: str | None) -> list[Peer]:
    """Give the proxies that were asked for and are here; those that are not are told with what would bring them."""
    names = [peer.name for peer in known] if wanted is None else wanted.split(",")
    for name in names:
        if name not in {peer.name for peer in known}:
            raise ValueError(f"no proxy {name!r}; there are {', '.join(peer.name for peer in known)}")
    chosen = [peer for peer in known if peer.name in names]
    for peer in chosen:
        if peer.program is None and peer.name != "direct":
            _say(f"{peer.name} is not here: {peer.install}")
    return [peer for peer in chosen if peer.program or peer.name == "direct"]


def _cores(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    try:
        proxy, load = map(int, text.split(","))
    except ValueError:
        raise ValueError(
            f"--cores {text}: two numbers are wanted, the proxy's and the generator's, such as 0,1"
        ) from None
    return proxy, load


def _go_apart(options: argparse.Namespace) -> bool:
    """Go into a network namespace, where we may."""
    if options.no_namespace or os.geteuid() != 0:
        return False
    try:
        enter_namespace()
    except OSError as error:
        _say(f"no network namespace of our own ({error.strerror}); on the machine's own loopback")
        return False
    return True


def _command(axis: Axis, point: Point, peers: Sequence[Peer], options: argparse.Namespace) -> str:
    """Write the command that measures a point again."""
    words = ["--axis", f"{axis.name}/{point.name}", "--peers", ",".join(peer.name for peer in peers)]
    words += ["--seconds", f"{options.seconds:g}", "--warmup", f"{options.warmup:g}", "--repeat", str(options.repeat)]
    for name in ("cores", "user"):
        if getattr(options, name):
            words += [f"--{name}", getattr(options, name)]
    words += [f"--{name}" for name in ("realtime", "no-namespace") if getattr(options, name.replace("-", "_"))]
    words += [f"--{name}={pair}" for name in ("also", "variant") for pair in getattr(options, name)]
    where = {"hev": "HEV=/path/to/hev-socks5-server ", "3proxy": "THREEPROXY=/path/to/3proxy "}
    given = "".join(where.get(peer.name, "") for peer in peers)
    return f"{given}make bench ARGS={shlex.quote(shlex.join(words))}"


def _progress(axis: Axis, point: Point, result: PointResult) -> str:
    first = axis.first_of(point)
    cells = [f"{name} {number(result.median(name, first), first.digits)}" for name in result.outcomes]
    return f"{axis.name}/{point.name}: {first.title}: {', '.join(cells)}"


def _list(chosen: Sequence[tuple[Axis, Sequence[Point]]], known: Sequence[Peer]) -> int:
    for axis, points in chosen:
        print(f"{axis.name}: {axis.about}")
        for point in points:
            print(f"  {axis.name}/{point.name}: {point.label}")
    print("proxies:")
    for peer in known:
        here = peer.version or "here" if peer.program or peer.name == "direct" else f"not here: {peer.install}"
        print(f"  {peer.name}: {here}")
    return 0


def _say(line: str) -> None:
    print(f"bench: {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
