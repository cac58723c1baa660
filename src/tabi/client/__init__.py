"""The client library: connections, listeners and datagrams through proxies. Users import `tabi.sync` or `tabi.aio`.

`sync` and `aio` are twins that hold no protocol: the plans are those of `tabi.dial`, and only who makes their wishes
true differs. What `sync` needs imports no asyncio.
"""
