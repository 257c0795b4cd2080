"""Contexts from files: what is wrong with a file is said, and of which one."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from tests.aio.certificates import Authority
from totora import ConfigurationError
from totora.aio.tls import tls_contexts

PLACES = {"certificate": 0, "key": 1, "authority": 2}


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """A certificate, its key, and the authority that signed it."""
    authority = Authority(tmp_path / "authority")
    return [*authority.files("node-1"), authority.file]


def refusal(files: list[Path]) -> str:
    with pytest.raises(ConfigurationError) as raised:
        tls_contexts(*files)
    return str(raised.value)


def test_both_contexts_demand_a_certificate_and_the_newest_tls(files: list[Path]) -> None:
    """The first is a server's, the second a client's; paths may be text."""
    for given in (files, [str(file) for file in files]):
        server, client = tls_contexts(*given)
        assert server.protocol == ssl.PROTOCOL_TLS_SERVER
        assert client.protocol == ssl.PROTOCOL_TLS_CLIENT
        for context in (server, client):
            assert context.verify_mode == ssl.CERT_REQUIRED
            assert context.minimum_version == ssl.TLSVersion.TLSv1_3
            assert len(context.get_ca_certs()) == 1, "nobody else's authorities"
        assert not client.check_hostname


@pytest.mark.parametrize("name", PLACES)
def test_a_file_that_is_missing_is_named(name: str, files: list[Path]) -> None:
    file = files[PLACES[name]]
    file.unlink()
    assert (
        refusal(files) == f"tls: the {name} {file} cannot be read: No such file or directory: give a PEM file"
    )


@pytest.mark.parametrize("name", PLACES)
def test_a_directory_is_no_file(name: str, files: list[Path], tmp_path: Path) -> None:
    files[PLACES[name]] = tmp_path
    assert refusal(files) == f"tls: the {name} {tmp_path} cannot be read: Is a directory: give a PEM file"


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize(
    "garbage",
    [b"", os.urandom(1_000), b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", b"text"],
    ids=["empty", "random", "a frame around nothing", "text"],
)
def test_a_file_that_holds_something_else_is_named(name: str, garbage: bytes, files: list[Path]) -> None:
    """And no other: all three stand in the settings."""
    file = files[PLACES[name]]
    file.write_bytes(garbage)
    assert refusal(files) == f"tls: the {name} {file} holds none that can be used: give a PEM file"


def test_files_in_each_others_place_are_named(files: list[Path]) -> None:
    certificate, key, authority = files
    assert f"the certificate {key} holds none" in refusal([key, certificate, authority])
    assert f"the key {certificate} holds none" in refusal([certificate, certificate, authority])
    assert f"the authority {key} holds none" in refusal([certificate, key, key])


def test_a_key_of_another_certificate_is_told_apart(files: list[Path], tmp_path: Path) -> None:
    certificate, _, authority = files
    _, other_key = Authority(tmp_path / "another").files("node-1")
    assert refusal([certificate, other_key, authority]) == (
        f"tls: the key {other_key} is not that of the certificate {certificate}: give both of one pair"
    )


def test_nobody_is_asked_for_a_password(files: list[Path]) -> None:
    """A service would wait at a terminal that nobody sees."""
    _, file, _ = files
    key = load_pem_private_key(file.read_bytes(), None)
    locked = BestAvailableEncryption(b"secret")
    file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, locked))
    assert refusal(files) == f"tls: the key {file} is encrypted: give one without a password"
