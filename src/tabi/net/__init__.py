"""asyncio plumbing: listeners, socket options, resolver, tasks, and the driver that makes plans of `tabi.dial` true."""
