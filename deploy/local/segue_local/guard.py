"""``python -m segue_local.guard NAME``: removes a stack when standard input closes, see ``tied``."""

import sys

from segue_local.stack import Stack

if __name__ == "__main__":
    sys.stdin.read()
    Stack.remove(sys.argv[1])
