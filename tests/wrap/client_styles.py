"""The names that clients/connects.c has for its styles."""

SEVEN = ("blocking", "timeout", "select", "poll", "epoll", "edge", "signal")
"""Every kernel has these."""

NOT_EVERYWHERE = ("io_uring", "mptcp", "mptcp-poll", "fast-open")
"""Kernels are built without these, or have them switched off."""
