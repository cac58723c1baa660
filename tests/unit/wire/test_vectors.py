"""The codecs against messages typed from the standards."""

import pytest

from vectors.messages import DATAGRAMS, STREAM, Vector


@pytest.mark.parametrize("vector", STREAM + DATAGRAMS, ids=str)
def test_bytes_of_the_standard_are_read(vector: Vector) -> None:
    for buffer in (bytes, bytearray, memoryview):
        assert type(vector.message).decode(buffer(vector.wire)) == vector.message


@pytest.mark.parametrize("vector", STREAM + DATAGRAMS, ids=str)
def test_bytes_of_the_standard_are_written(vector: Vector) -> None:
    assert vector.message.encode() == vector.wire


@pytest.mark.parametrize("vector", STREAM, ids=str)
def test_no_prefix_of_a_message_is_taken_for_the_whole(vector: Vector) -> None:
    size = type(vector.message).size
    for end in range(len(vector.wire)):
        assert end < size(vector.wire[:end]) <= len(vector.wire), f"after {end} bytes"
    assert size(vector.wire) == len(vector.wire)


@pytest.mark.parametrize("vector", STREAM, ids=str)
def test_bytes_behind_a_message_do_not_belong_to_it(vector: Vector) -> None:
    more = vector.wire + b"\x00\x05\xff\x00"
    assert type(vector.message).size(more) == len(vector.wire)
    assert type(vector.message).decode(more) == vector.message
