"""Public helpers for tests of SOCKS programs; part of the interface, like the rest.

- `Pair`: a client's and a server's machine joined in memory.
- `Script`: scenario tests for one machine, played in all cuts.
- `FakeClock`: a driver of dial plans in virtual time; `FakeStream`: the far end of its connections.
- `tabi.testing.dribble`: ways to cut bytes, and `send_dribbled` for sockets.
- `EvilPeer`: a peer over real sockets that misbehaves; its parts are in `tabi.testing.parts`.
"""

from tabi.testing.clock import FakeClock
from tabi.testing.dribble import each_byte, random_cuts, send_dribbled, whole
from tabi.testing.evil import EvilPeer
from tabi.testing.pair import Pair, grant
from tabi.testing.script import Script, ScriptError
from tabi.testing.stream import FakeStream

__all__ = [
    "EvilPeer", "FakeClock", "FakeStream", "Pair", "Script", "ScriptError",
    "each_byte", "grant", "random_cuts", "send_dribbled", "whole",
]  # fmt: skip
