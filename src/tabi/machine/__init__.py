"""Sans-IO sessions: bytes and facts in, events and bytes out; no socket, clock or log anywhere.

`server.ServerMachine` and `client.ClientMachine` are the two halves of a handshake, `association.Association`
is a UDP relay's judgement over datagrams, `reassembly.Reassembly` joins its fragments.
"""
