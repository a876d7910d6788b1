"""``python -m segue_local.guard NAME``: remove a stack when the other end of standard input is closed, see ``tied``."""

import sys

from segue_local.stack import Stack

if __name__ == "__main__":
    sys.stdin.read()
    Stack.remove(sys.argv[1])
