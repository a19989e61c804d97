"""`python -m leakloc` is the same as `leakloc`."""

from leakloc.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
