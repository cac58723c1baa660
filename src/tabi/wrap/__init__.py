"""Programs that know of no proxy, through one, and none the wiser.

The program lives in a network namespace of its own, whose only way leads into a second one, the gate. There its SYNs
are held until a proxy has answered. `house` makes both; `keeper` is the process that looks after them.
"""
