"""`python -m noria` is the command line."""

from noria.apps.cli import main

main()
