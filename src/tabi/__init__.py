"""tabi: a SOCKS suite for Linux (server, client library, socksifier, tools).

Start with ``tabi --help`` or README.md; ARCHITECTURE.md draws the layers.
"""

__all__ = ["__version__"]

__version__ = "0.1.0"
