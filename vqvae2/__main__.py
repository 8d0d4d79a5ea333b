"""`python -m vqvae2` is the command line."""

from vqvae2.cli.main import main

if __name__ == "__main__":
    main()
