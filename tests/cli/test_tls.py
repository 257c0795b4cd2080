"""TLS on the command line: files of certificates for nodes and for whoever uses them, and what goes wrong with them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.aio.certificates import Authority
from tests.cli.shell import Cluster, Ended, running_cluster, totora

NODES = "1=127.0.0.1:1"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls") / "authority")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls") / "stranger")


@pytest.fixture(scope="module")
def cluster(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two nodes, each with a certificate of its own."""
    certificate, key = authority.files("node-1")
    authority.files("node-2")
    options = [
        f"--tls-cert={str(certificate).replace('node-1', 'node-{id}')}",
        f"--tls-key={str(key).replace('node-1', 'node-{id}')}",
        f"--tls-ca={authority.file}",
    ]
    with running_cluster(tmp_path_factory.mktemp("cluster"), 2, options) as cluster:
        yield cluster


def shown(certified: Authority, *, trusts: Authority | None = None) -> list[str]:
    """The options of a client that is certified by one authority and trusts it, or another one."""
    certificate, key = certified.files("client")
    authority = (trusts or certified).file
    return ["--tls-cert", str(certificate), "--tls-key", str(key), "--tls-ca", str(authority)]


def test_append_log_and_status_with_certificates(cluster: Cluster, authority: Authority) -> None:
    client = shown(authority)
    append = cluster("append", "--json", *client, stdin="a\nb")
    assert (append.code, append.err) == (0, "")
    log = cluster("log", "--json", *client)
    assert [entry["value"] for entry in log.objects] == ["a", "b"]
    roles = [node["role"] for node in cluster("status", "--json", *client).objects]
    assert sorted(roles) == ["follower", "leader"]


def test_the_environment_may_name_the_files(cluster: Cluster, authority: Authority) -> None:
    names = ("TOTORA_TLS_CERT", "TOTORA_TLS_KEY", "TOTORA_TLS_CA")
    ended = totora(
        "status", "--nodes", cluster.spelled, **dict(zip(names, shown(authority)[1::2], strict=True))
    )
    assert (ended.code, ended.err) == (0, "")


def silent(ended: Ended) -> str:
    """Why no node answered a status."""
    assert ended.failed() == "totora status: no node answers"
    return ended.lines[-1]


def test_plaintext_gets_no_answer_and_a_hint(cluster: Cluster) -> None:
    why = silent(cluster("status"))
    assert why.startswith("nodes 1, 2: ")
    assert "tls" in why
    failed = cluster("append", "--timeout", "0.5", stdin="secret").failed()
    assert "tls" in failed
    assert failed.endswith("; nothing is appended")


def test_an_authority_that_the_nodes_do_not_have(
    cluster: Cluster, authority: Authority, stranger: Authority
) -> None:
    """They turn such a client away, even if it trusts them."""
    assert "tls" in silent(cluster("status", *shown(stranger, trusts=authority)))
    assert "tls" in cluster("log", "--timeout", "0.5", *shown(stranger, trusts=authority)).failed()


def test_nodes_that_the_client_does_not_trust(
    cluster: Cluster, authority: Authority, stranger: Authority
) -> None:
    why = silent(cluster("status", *shown(authority, trusts=stranger)))
    assert "certificate" in why


def test_tls_to_nodes_in_plaintext(authority: Authority, tmp_path: Path) -> None:
    with running_cluster(tmp_path, 1) as plain:
        assert silent(plain("status", *shown(authority))).startswith("node 1: ")


# -- files


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_a_file_that_is_missing_is_named(authority: Authority, tmp_path: Path, missing: int) -> None:
    options = shown(authority)
    options[2 * missing + 1] = str(tmp_path / "missing.pem")
    words = ["node", "--id", "1"] if missing else ["status"]
    ended = totora(*words, "--nodes", NODES, *options)
    assert ended.failed() == f"totora {words[0]}: {tmp_path / 'missing.pem'}: No such file or directory"


@pytest.mark.parametrize("wrong", [0, 1, 2])
def test_a_file_that_is_something_else_is_named(authority: Authority, tmp_path: Path, wrong: int) -> None:
    text = tmp_path / "text"
    text.write_text("no certificate\n")
    options = shown(authority)
    options[2 * wrong + 1] = str(text)
    assert str(text) in totora("status", "--nodes", NODES, *options).failed()


def test_a_key_of_another_certificate(authority: Authority) -> None:
    options = shown(authority)
    options[3] = str(authority.files("node-1")[1])
    failed = totora("status", "--nodes", NODES, *options).failed()
    assert options[1] in failed
    assert options[3] in failed
