"""The socket class as it was when tabi was imported; `socket.socket` may be replaced, by `tabi.compat` for one."""

import socket

__all__ = ["PlainSocket"]

PlainSocket = socket.socket
