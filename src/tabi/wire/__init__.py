"""Stateless codecs, one module per message family.

Every message class is a pair ``encode()`` / ``decode(buf)``; those that a stream carries also have
``size(buf)``: how many bytes the message at the start of ``buf`` has as far as the bytes at hand tell, so
that a reader never takes a byte past its end. What ``size`` refuses it refuses at a length that it has asked for
itself, so that a refusal does not depend on how the bytes were cut.
"""
