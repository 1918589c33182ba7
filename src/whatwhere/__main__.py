"""``python -m whatwhere`` is the command ``whatwhere``."""

from whatwhere.cli import main

if __name__ == "__main__":
    main()
