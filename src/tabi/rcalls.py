"""The calls of Koblas' SOCKS library, by their names: the socket calls with an R before them, on SOCKS4 and 5.

::

    import socket
    from tabi.rcalls import Raccept, Rbind, Rconnect, Rgetsockname, Rlisten

    control = socket.socket()
    Rconnect(control, ("ftp.example.org", 21))      # through the proxy that the environment names
    data = socket.socket()
    Rbind(data, ("", 0), "ftp.example.org")         # listens at the proxy
    Rlisten(data)
    tell_the_server(control, Rgetsockname(data))    # the address at the proxy
    sock, peer = Raccept(data)

`tabi.client.rcalls` tells how the calls work, `tabi.client.socks_server` which variables are read. New programs are
better served by `tabi.sync` and `tabi.aio`.
"""

from tabi.client.rcalls import (
    Raccept,
    Rbind,
    Rconnect,
    Rgetpeername,
    Rgetsockname,
    Rinit,
    Rlisten,
    Rselect,
)

__all__ = ["Raccept", "Rbind", "Rconnect", "Rgetpeername", "Rgetsockname", "Rinit", "Rlisten", "Rselect"]
