"""A program: a server that serves clients of every host, which the command does not do without rules.

Its one argument is JSON: "listen" (list of HOST:PORT), "time", "udp", "bind" (fields of the settings), "getaddrinfo"
(true: look names up as where the extra for DNS is not installed). It says where it listens and logs as `tabi serve
--log-format json` does, and ends by SIGTERM.
"""

import asyncio
import json
import signal
import sys
from ipaddress import ip_address
from typing import Any


def main() -> None:
    """Serve until SIGTERM."""
    options: dict[str, Any] = json.loads(sys.argv[1])
    if options.pop("getaddrinfo", False):
        sys.modules["aiodns"] = None  # type: ignore[assignment]  # what import makes of it is ImportError
    asyncio.run(_serve(options))


async def _serve(options: dict[str, Any]) -> None:
    from helpers.serving import allow_all
    from tabi.addr import Endpoint
    from tabi.config.settings import BindSettings, Settings, TimeLimits, UdpSettings
    from tabi.server import Server

    addresses = {"address", "advertise", "egress4", "egress6"}

    def fields(name: str) -> dict[str, Any]:
        given: dict[str, Any] = options.get(name, {})
        return {key: ip_address(value) if key in addresses else value for key, value in given.items()}

    settings = Settings(
        listen=tuple(map(Endpoint.parse, options["listen"])),
        time=TimeLimits(**fields("time")),
        udp=UdpSettings(**fields("udp")),
        bind=BindSettings(**fields("bind")),
    )
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with Server(settings, policy=allow_all, write_log=_log, log_format="json") as server:
        for endpoint in server.addresses:
            print(f"tabi: listening on {endpoint}", file=sys.stderr, flush=True)
        await stop.wait()


def _log(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    main()
