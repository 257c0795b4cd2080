"""A plausible node that is wrong: the first one decides all writes and tells the others later; each reads what it has.

It uses nothing of totora. For tests of the harness.
"""

from __future__ import annotations

import json
import sys
from typing import Any


class Node:
    def __init__(self) -> None:
        self.name = ""
        self.names: list[str] = []
        self.values: dict[str, Any] = {}

    def send(self, dest: str, **body: Any) -> None:
        sys.stdout.write(json.dumps({"src": self.name, "dest": dest, "body": body}) + "\n")
        sys.stdout.flush()

    def received(self, source: str, body: dict[str, Any]) -> None:
        key = str(body.get("key"))
        match body["type"]:
            case "init":
                self.name, self.names = body["node_id"], body["node_ids"]
                self.send(source, type="init_ok", in_reply_to=body["msg_id"])
            case "read":
                if key in self.values:
                    self.send(source, type="read_ok", in_reply_to=body["msg_id"], value=self.values[key])
                else:
                    self.send(source, type="error", in_reply_to=body["msg_id"], code=20)
            case "write" | "cas" if self.name != self.names[0]:
                self.send(self.names[0], type="forward", client=source, request=body)
            case "write" | "cas":
                self.decide(source, key, body)
            case "forward":
                self.received(body["client"], body["request"])
            case "replicate":
                self.values[key] = body["value"]
            case _:
                raise ValueError(body)

    def decide(self, client: str, key: str, body: dict[str, Any]) -> None:
        if body["type"] == "cas" and self.values.get(key) != body["from"]:
            code = 22 if key in self.values else 20
            self.send(client, type="error", in_reply_to=body["msg_id"], code=code)
            return
        self.values[key] = body["value"] if body["type"] == "write" else body["to"]
        for name in self.names[1:]:
            self.send(name, type="replicate", key=key, value=self.values[key])
        self.send(client, type=f"{body['type']}_ok", in_reply_to=body["msg_id"])


if __name__ == "__main__":
    node = Node()
    for line in sys.stdin:
        message = json.loads(line)
        node.received(message["src"], message["body"])
