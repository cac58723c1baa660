"""What `tabi doctor` does: examine a proxy and say what it is and where it is wrong.

From the bottom: `finding` (what was found), `line` (a connection whose every wait ends), `spots` (targets of our own,
on the proxy's host alone), `patient` (the proxy, and how to ask it in the right way), `place` (where it is),
`examination`, then one module for each group of examinations, `rounds` (all of them, in their order), `report`.

Nothing is sent to anybody but the proxy and the targets of this process; and the proxy is asked for nobody but these,
and whom the user names.
"""
