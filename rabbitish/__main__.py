"""`python -m rabbitish`: the same as the command `rabbitish`."""

from __future__ import annotations

from rabbitish.cli import main

if __name__ == "__main__":
    main(prog_name="rabbitish")
