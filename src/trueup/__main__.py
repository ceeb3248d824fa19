"""`python -m trueup` is the command `trueup`, as launchers of several processes start it."""

from trueup.cli.entry import main

if __name__ == "__main__":
    main()
