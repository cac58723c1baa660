"""The proxy server: accept -> machine -> policy -> dial -> relay, and one log line per session.

`Server` is the whole of it; `server.session` is the way of one client.
"""

from tabi.server.accounts import Account, Accounts, Table
from tabi.server.auth import Authenticator, Login, Passwords
from tabi.server.server import Server

__all__ = ["Account", "Accounts", "Authenticator", "Login", "Passwords", "Server", "Table"]
