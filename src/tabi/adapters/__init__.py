"""Other libraries through proxies: each module is for one of them, imports it, and says so where it is not installed.

What a module gives fits into its library where that has a place for it: an adapter of requests, a transport of httpx, a
connector of aiohttp, a stream of trio or anyio. Names go to the proxy or are resolved here as its URL says; errors are
the library's own, with ours as their cause. Libraries that take a connected socket need none of this:
`tabi.sync.create_connection` and `tabi.aio.open_socket` give one. docs/howto/adapters.md shows all of them.
"""
