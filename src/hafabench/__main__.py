"""``python -m hafabench``: the command line, as torchrun starts it."""

from hafabench.cli import main

if __name__ == "__main__":
    main()
