"""The format as it is on the wire, to the byte: other versions of this code run beside this one (DESIGN 7).

If a test here fails, either take the change back or raise `VERSION_MAX` and keep what the older version is sent.
"""

from __future__ import annotations

from typing import Any, Final

import pytest

from tests.wire.samples import HANDSHAKES, KINDS, SAMPLES, framed, receive
from totora.wire.frames import HANDSHAKE_BYTES_MAX, FrameReader
from totora.wire.handshake import (
    VERSION_MAX,
    VERSION_MIN,
    Hello,
    Refusal,
    Welcome,
    decode_answer,
    decode_hello,
    encode_handshake,
)

MESSAGES: Final = {
    "RequestVote": "0700000007000000896476a1960104020a03c3",
    "RequestPreVote": "06000000060000005fe815d1950205020a03",
    "AppendEntries": (
        "a10000000b0000001c2f93f8980304010703060c924b4bc562f3fc010300000b000000010000000300000000"
        "0000000800000000000000000000000000000000000000000000000000000000000000000000000000000007"
        "0000006d656d6265727391c62924010200000b00000002000000040000000000000009000000000000003412"
        "0000000000000500000000000000000064a7b3b6e00d070000000000000003000000000000006f6e65"
    ),
    "Propose": ("210000002100000081b4ca0d9a0463cd1234050206cf000000012a05f200c40b03000000000000006f6e650803"),
    "RequestRead": "0300000003000000bd411ddf920562",
    "VoteAccepted": "040000000400000092359f6d931004c0",
    "VoteRejected": "040000000400000083ad3e8093110401",
    "PreVoteAccepted": "0400000004000000bdd00077931205c0",
    "PreVoteRejected": "0500000005000000aee370ce9413040105",
    "AppendAccepted": "0600000006000000d04ef014951404010a0c",
    "AppendRejected": "0800000008000000ecd0aa71971504010706020c",
    "ProposeAccepted": "070000000700000072b6f91596160401630904",
    "ProposeRejected": "1100000011000000f8b4b077981704c063a86d69736d61746368c30803",
    "ReadAccepted": "0600000006000000f1b64e0c951804016209",
    "ReadRejected": "10000000100000000e8a3477951904c062aa6f7665726c6f61646564",
    "ReadRanges": ("1100000011000000a7eb2c18942061cf000000012a05f20094010a0c0c"),
    "RangesRead": (
        "9e0000000800000077ec98119521610901924b4bc562f3fc010300000b000000010000000300000000000000"
        "0800000000000000000000000000000000000000000000000000000000000000000000000000000007000000"
        "6d656d6265727391c62924010200000b00000002000000040000000000000009000000000000003412000000"
        "0000000500000000000000000064a7b3b6e00d070000000000000003000000000000006f6e65"
    ),
    "RequestStatus": "0300000003000000f492d6eb922260",
    "StatusReport": (
        "2d0100002d010000de16d5269323608ea2696401a4726f6c65a66c6561646572a47465726d04a66c65616465"
        "7201aa6c6173745f696e6465780aac636f6d6d69745f696e64657809ad6170706c6965645f696e64657809ad"
        "64757261626c655f696e6465780aaa636c75737465725f6964a26331a873746f72655f6964a26131ab696e63"
        "61726e6174696f6e02a8766f6c6174696c65c2a570656572739286a2696402a761646472657373ab3132372e"
        "302e302e313a32a66c696e6b6564c3ab6d617463685f696e64657809a873696c656e745f73cb3fe000000000"
        "0000a772656675736564c086a2696403a761646472657373a75b3a3a315d3a33a66c696e6b6564c2ab6d6174"
        "63685f696e646578c0a873696c656e745f73c0a772656675736564a26e6fa3776879ae6e6f64652033206973"
        "2061776179"
    ),
    "TimeoutNow": "04000000040000007618579993060401",
    "RequestTransfer": "04000000040000002596c84193075e02",
    "TransferRejected": "1800000018000000a53300cf951a04015eb26e6f64652032206973206e6f20766f746572",
    "HandOver": "0d0000000d0000006ec68f3994265dcf000000012a05f20002",
    "HandedOver": "04000000040000000683a85293275d02",
    "RequestFailed": (
        "2300000023000000c16a8b8297255fac6f75745f6f665f72616e6765af61736b2077697468696e207468656d010903"
    ),
}

GREETINGS: Final = {
    "Hello": (
        "6b0000006b000000f8b665e29e40a6746f746f72610101a7636f6e74726f6cc4106363636363636363636363"
        "6363636363c4106c6c6c6c6c6c6c6c6c6c6c6c6c6c6c6c02c4107373737373737373737373737373737303c4"
        "1066666666666666666666666666666666a93132372e302e302e31cd1b5801"
    ),
    "Welcome": "19000000190000000044e111974101c001c410747474747474747474747474747474740409",
    "Refusal": ("2000000020000000789e14009342a66d656d626572b66e6f64652032206973206e6f742061206d656d626572"),
}


def named(value: Any) -> str:
    return type(value).__name__


def test_every_kind_has_golden_bytes() -> None:
    """A new kind of message is no accident: it comes with its bytes."""
    assert set(MESSAGES) == {kind.__name__ for kind in KINDS} == {named(sample) for sample in SAMPLES}
    assert len(SAMPLES) == len(KINDS)


def test_the_golden_bytes_are_those_of_version_1() -> None:
    assert (VERSION_MIN, VERSION_MAX) == (1, 1)


@pytest.mark.parametrize("sample", SAMPLES, ids=named)
def test_a_message_is_these_bytes(sample: Any) -> None:
    golden = bytes.fromhex(MESSAGES[named(sample)])
    assert framed(sample).hex() == golden.hex()
    assert receive(golden) == [sample]


@pytest.mark.parametrize("sample", HANDSHAKES, ids=named)
def test_a_greeting_is_these_bytes(sample: Hello | Welcome | Refusal) -> None:
    golden = bytes.fromhex(GREETINGS[named(sample)])
    assert b"".join(encode_handshake(sample)).hex() == golden.hex()
    decode = decode_hello if isinstance(sample, Hello) else decode_answer
    assert [decode(header) for header, _ in FrameReader(HANDSHAKE_BYTES_MAX).feed(golden)] == [sample]
