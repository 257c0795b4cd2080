"""What a user may ask for; what cannot be meant is refused at once, with a remedy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from totora.errors import InvalidRequest, Overloaded
from totora.session.requests import AppendRequest, Err, IndexRange, Ok, append_request, index_range


@pytest.mark.parametrize(
    ("construct", "why"),
    [
        (lambda: index_range(0, 3), "from an index of at least 1 .* not 0 to 3"),
        (lambda: index_range(-2, 3), "at least 1"),
        (lambda: index_range(5, 4), "not smaller, not 5 to 4"),
        (lambda: IndexRange(3, 0), "not smaller"),
        (lambda: append_request([]), "at least one entry"),
        (lambda: append_request(()), "at least one entry"),
        (lambda: append_request("text"), r"write \[entry\]"),
        (lambda: append_request(b"bytes"), r"write \[entry\]"),
        (lambda: append_request(bytearray(b"bytes")), r"write \[entry\]"),
        (lambda: append_request(memoryview(b"bytes")), r"write \[entry\]"),
        (
            lambda: append_request(["a"], prev_log_index=3),
            "both prev_log_index and prev_log_term, or neither",
        ),
        (lambda: append_request(["a"], prev_log_term=3), "both prev_log_index and prev_log_term, or neither"),
        (lambda: append_request(["a"], prev_log_index=-1, prev_log_term=0), "at least 0"),
        (lambda: append_request(["a"], prev_log_index=0, prev_log_term=-1), "at least 0"),
        (lambda: AppendRequest(["a"], 1), "both"),
    ],
)
def test_what_cannot_be_meant_is_an_invalid_request(construct: Callable[[], Any], why: str) -> None:
    with pytest.raises(InvalidRequest, match=why):
        construct()


def test_the_helpers_make_the_two_requests() -> None:
    assert index_range(1, 1) == IndexRange(1, 1)
    plain = append_request(["a", "b"])
    assert plain == AppendRequest(["a", "b"])
    assert plain.condition is None
    assert append_request(["a"], prev_log_index=0, prev_log_term=0).condition == (0, 0)
    assert append_request(("a",), prev_log_index=7, prev_log_term=2).condition == (7, 2)


def test_a_result_is_unwrapped_to_its_value_or_raises_its_error() -> None:
    assert Ok([1]).unwrap() == [1]
    error = Overloaded(5)
    with pytest.raises(Overloaded) as raised:
        Err(error).unwrap()
    assert raised.value is error
