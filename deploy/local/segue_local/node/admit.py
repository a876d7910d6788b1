"""A CNI plugin behind ``ptp``: admits the pods of some namespaces to the API server and to Temporal.

The node's runtime runs it before a pod's first container, so a program in the pod never finds the way closed. It
imports nothing of the stack, because it runs for each pod.
"""

import json
import os
import subprocess
import sys

VERSION = "1.0.0"


def main() -> None:
    """Answer one command of the runtime, as the specification of CNI 1.0 describes it."""
    command = os.environ["CNI_COMMAND"]
    if command == "VERSION":
        print(json.dumps({"cniVersion": VERSION, "supportedVersions": [VERSION]}))
        return
    given = json.load(sys.stdin)
    before = given.get("prevResult") or {}
    pod = dict(pair.split("=", 1) for pair in os.environ.get("CNI_ARGS", "").split(";") if pair)
    admitted = command == "ADD" and pod.get("K8S_POD_NAMESPACE") in given["namespaces"]
    for each in before.get("ips", ()):
        # A pod that is not admitted may have the address of one that was, and that left no trace.
        _change("add" if admitted else "delete", each["address"].partition("/")[0], must=admitted)
    if command == "ADD":
        print(json.dumps(before))


def _change(verb: str, address: str, *, must: bool) -> None:
    element = ("element", "inet", "segue", "admitted", f"{{ {address} }}")
    subprocess.run(["nft", verb, *element], check=must, stdout=sys.stderr)


if __name__ == "__main__":
    main()
