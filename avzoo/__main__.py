"""`python -m avzoo`."""

from avzoo.cli import main

main()
