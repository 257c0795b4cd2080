"""The ancestor's way to talk: each message is JSON text in one datagram, introduced in full (DESIGN 6 and 7). Sans-IO.

    {"checksum":"5d41402a","totora":[1,1],"from":2,"to":1,"hears":true,"cluster":"...","list":"...","store":"...",
     "incarnation":3,"entry_type":"...","refusal":null,
     "message":{"type":"RequestVote","term":5,"candidate_id":2,"last_log_index":7,"last_log_term":4}}

`checksum` comes first and is the zlib.crc32, as eight hexadecimal digits, of all that follows its comma: a flipped bit in a term
would be another term. Bytes are base64, a batch too, whose entries are not encoded again. No message: a greeting.
"""

from __future__ import annotations

import functools
import operator
import zlib
from dataclasses import dataclass
from typing import Annotated, Any, Final, TypeAlias, get_args

import msgspec

from ..core.batch import Batch
from ..core.messages import AppendEntries, Message
from ..errors import ProtocolError
from ..types import Address, NodeId, Number
from .handshake import MAGIC, Hello, Refusal, RefusalCode

__all__ = ["DATAGRAM_BYTES_MAX", "Datagram", "decode_datagram", "encode_datagram"]

DATAGRAM_BYTES_MAX: Final = 65_507
"""What UDP over IPv4 carries: 64 KiB without both headers. A batch of 44 KiB fits, as base64 with all around it."""

_PREFIX: Final = b'{"checksum":"%08x",'
_PREFIX_BYTES: Final = len(_PREFIX % 0)

_Name: TypeAlias = Annotated[bytes, msgspec.Meta(max_length=64)]


class _Envelope(msgspec.Struct, frozen=True):
    """Who speaks, to whom; `handshake.Hello` in words of JSON. Members that a later version adds are passed over."""

    totora: tuple[Number, Number]
    sender: Number = msgspec.field(name="from")
    to: Number
    hears: bool
    cluster: _Name | None
    list: _Name
    store: _Name
    incarnation: Number
    entry_type: _Name
    refusal: msgspec.Raw
    message: msgspec.Raw


class _Refusal(msgspec.Struct, frozen=True):
    code: RefusalCode
    text: Annotated[str, msgspec.Meta(max_length=500)]


_FIELD_FORMS: Final[dict[Any, Any]] = {
    int: Number,
    tuple[Batch, ...]: tuple[bytes, ...],
}


def _form_of(kind: type[msgspec.Struct]) -> type[msgspec.Struct]:
    """A message's form in JSON: the same members by name, the kind as `type`."""
    members: list[Any] = []
    for field in msgspec.structs.fields(kind):
        member: tuple[Any, ...] = field.name, _FIELD_FORMS.get(field.type, field.type)
        members.append(member if field.required else (*member, field.default))
    return msgspec.defstruct(kind.__name__, members, frozen=True, tag=kind.__name__, tag_field="type")


_KINDS: Final[tuple[type[Any], ...]] = get_args(Message)
_FORMS: Final[dict[type[Any], type[Any]]] = {kind: _form_of(kind) for kind in _KINDS}
_KIND_OF: Final[dict[type[Any], type[Any]]] = {form: kind for kind, form in _FORMS.items()}

_ENCODER: Final = msgspec.json.Encoder()
_ENVELOPE: Final = msgspec.json.Decoder(_Envelope)
_MESSAGE: Final[msgspec.json.Decoder[Any]] = msgspec.json.Decoder(
    functools.reduce(operator.or_, _FORMS.values())
)
_REFUSAL: Final = msgspec.json.Decoder(_Refusal)
_NULL: Final = msgspec.Raw(b"null")


@dataclass(slots=True, frozen=True)
class Datagram:
    """A datagram that is sound; whether its sender is welcome is yet to be judged."""

    envelope: _Envelope

    @property
    def sender(self) -> NodeId:
        return self.envelope.sender

    @property
    def hears(self) -> bool:
        """The sender has heard lately from the node that it speaks to."""
        return self.envelope.hears

    def hello(self, source: Address) -> Hello:
        """What the handshake of a stream would have said."""
        said = self.envelope
        return Hello(
            MAGIC,
            *said.totora,
            "control",
            said.cluster,
            said.list,
            said.sender,
            said.store,
            said.incarnation,
            said.entry_type,
            *source,
            said.to,
        )

    def message(self) -> Message | None:
        """None: a greeting. Raises ProtocolError. Decoded apart, for another version's message need not be one here."""
        raw = bytes(self.envelope.message)
        if raw == b"null":
            return None
        try:
            form = _MESSAGE.decode(raw)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise ProtocolError(self.sender, str(error)) from error
        values = msgspec.structs.astuple(form)
        if isinstance(form, _FORMS[AppendEntries]):
            values = (*values[:-1], tuple(map(Batch.parse, values[-1])))
        message: Message = _KIND_OF[type(form)](*values)
        return message

    def refusal(self) -> Refusal | None:
        """The sender does not listen to this node, and says why. Raises ProtocolError."""
        raw = bytes(self.envelope.refusal)
        if raw == b"null":
            return None
        try:
            refusal = _REFUSAL.decode(raw)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise ProtocolError(self.sender, str(error)) from error
        if not refusal.text.isprintable():
            raise ProtocolError(self.sender, "control characters in a refusal")
        return Refusal(refusal.code, refusal.text)


def encode_datagram(hello: Hello, hears: bool, content: Message | Refusal | None) -> bytes:
    """One datagram; without content it is a greeting. The caller bounds its size."""
    message = refusal = _NULL
    if isinstance(content, Refusal):
        refusal = msgspec.Raw(_ENCODER.encode(_Refusal(content.code, content.text)))
    elif content is not None:
        values = msgspec.structs.astuple(content)
        if isinstance(content, AppendEntries):
            values = (*values[:-1], tuple(batch.data for batch in content.batches))
        message = msgspec.Raw(_ENCODER.encode(_FORMS[type(content)](*values)))
    assert hello.to is not None, "a datagram is for one node"
    text = _ENCODER.encode(
        _Envelope(
            (hello.version_min, hello.version_max),
            hello.node_id,
            hello.to,
            hears,
            hello.cluster_id,
            hello.list_hash,
            hello.store_id,
            hello.incarnation,
            hello.fingerprint,
            refusal,
            message,
        )
    )
    rest = memoryview(text)[1:]
    return b"".join((_PREFIX % zlib.crc32(rest), rest))


def decode_datagram(data: bytes) -> Datagram:
    """Raises ProtocolError for what is no datagram of this protocol."""
    if len(data) <= _PREFIX_BYTES or data[:_PREFIX_BYTES] != _PREFIX % zlib.crc32(
        memoryview(data)[_PREFIX_BYTES:]
    ):
        raise ProtocolError("datagram", "no checksum, or it does not match")
    try:
        envelope = _ENVELOPE.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise ProtocolError("datagram", str(error)) from error
    return Datagram(envelope)
