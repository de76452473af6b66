"""`python -m avzoo`."""

from avzoo.cli import main

if __name__ == "__main__":
    main()
