"""Bytes and messages: framing, encoding, the handshake. Sans-IO; nothing is ever unpickled."""
