"""An answer is read the same however it is cut, and what is none is refused."""

from __future__ import annotations

import email.utils
import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redflag.simulation.answers import MOST_BODY, MOST_HEAD, Answer, BadAnswer, Reader

PLAIN = b"HTTP/1.1 200 OK\r\ndate: today\r\ncontent-length: 15\r\n\r\n" + b'{"commands":[]}'
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b'6;name=value\r\n{"comm\r\n9\r\nands":[]}\r\n0\r\nTrailer: x\r\n\r\n'
)
CHUNKED_WITHOUT_TRAILER = (
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\nF\r\n" + b'{"commands":[]}' + b"\r\n0\r\n\r\n"
)
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n" + b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + PLAIN
EMPTY = b"HTTP/1.1 204 No Content\r\n\r\n"
REFUSED = b"HTTP/1.1 503 Service Unavailable\r\nRETRY-AFTER: 7\r\nConnection: Close\r\nContent-Length: 2\r\n\r\n{}"
BODY = b'{"commands":[]}'

WHOLE = [
    (PLAIN, Answer(200, BODY, False, None)),
    (CHUNKED, Answer(200, BODY, False, None)),
    (CHUNKED_WITHOUT_TRAILER, Answer(200, BODY, False, None)),
    (INTERIM, Answer(200, BODY, False, None)),
    (EMPTY, Answer(204, b"", False, None)),
    (REFUSED, Answer(503, b"{}", True, 7.0)),
    (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", Answer(200, b"", True, None)),
    (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n", Answer(200, b"", False, None)),
]


@pytest.mark.parametrize(("data", "answer"), WHOLE)
def test_an_answer_is_read_in_one_piece_and_cut_at_every_byte(data: bytes, answer: Answer) -> None:
    assert Reader().feed(data) == answer
    for cut in range(1, len(data)):
        reader = Reader()
        assert reader.feed(data[:cut]) is None, cut
        assert reader.feed(data[cut:]) == answer, cut
    reader = Reader()
    for place in range(len(data) - 1):
        assert reader.feed(data[place : place + 1]) is None
    assert reader.feed(data[-1:]) == answer


@given(st.lists(st.sampled_from(WHOLE), min_size=1, max_size=5), st.data())
def test_one_answer_after_the_other_is_read_on_one_connection(
    answers: list[tuple[bytes, Answer]], data: st.DataObject
) -> None:
    reader = Reader()
    for raw, answer in answers:
        cuts = sorted({0, *data.draw(st.lists(st.integers(1, len(raw) - 1), max_size=4)), len(raw)})
        found = [reader.feed(raw[one:other]) for one, other in itertools.pairwise(cuts)]
        assert found == [None] * (len(found) - 1) + [answer]


def test_an_answer_without_a_length_ends_with_the_connection() -> None:
    reader = Reader()
    assert reader.feed(b"HTTP/1.1 200 OK\r\n\r\nabc") is None
    assert reader.feed(b"def") is None
    assert reader.end() == Answer(200, b"abcdef", True, None)
    assert reader.end() is None


def test_an_answer_that_is_cut_by_the_end_of_the_connection_is_none() -> None:
    reader = Reader()
    assert reader.feed(PLAIN[:-1]) is None
    assert reader.end() is None
    assert reader.feed(PLAIN) == Answer(200, BODY, False, None)


@pytest.mark.parametrize(
    "data",
    [
        PLAIN + b"x",
        PLAIN + PLAIN,
        CHUNKED + b"x",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.1 xx OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabcd",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1" * 2000,
        b"x" * (MOST_HEAD + 1),
        b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (MOST_BODY + 1),
    ],
)
def test_what_is_no_answer_is_refused(data: bytes) -> None:
    with pytest.raises(BadAnswer):
        Reader().feed(data)


def test_when_to_come_back_is_read_as_seconds_or_a_date_up_to_an_hour() -> None:
    def after(value: str) -> float | None:
        answer = Reader().feed(f"HTTP/1.1 429 Too Many\r\nretry-after: {value}\r\ncontent-length: 0\r\n\r\n".encode())
        assert answer is not None
        return answer.retry_after

    assert after("12") == 12
    assert after("999999999") == 3600
    assert after("soon") is None
    soon = after(email.utils.formatdate(time.time() + 30, usegmt=True))
    assert soon is not None
    assert 25 < soon <= 30
    assert after(email.utils.formatdate(time.time() - 30, usegmt=True)) == 0
