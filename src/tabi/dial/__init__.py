"""How to reach a target, as sans-IO plans.

A plan is a generator. It yields a batch of wishes (`tabi.dial.wishes`) and is sent one fact at a time: a wish that
came true or failed. It returns a `Connection` or raises a `DialError` or `DeniedError` that says at which stage and
why. A driver (`tabi.net.driver` on asyncio, `tabi.testing` on a fake clock) makes the wishes true.
"""
