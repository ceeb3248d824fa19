"""Where the command `trueup` begins: Ctrl+C while the rest is still imported ends it quietly, too."""


def main() -> None:
    """Run the command that was typed; 130 on Ctrl+C, as a shell says of SIGINT."""
    try:
        from trueup.cli.main import main as command

        command()
    except KeyboardInterrupt:
        import os

        os.write(2, b"\nstopped\n")
        os._exit(130)  # at once: what is half imported would fail while it is torn down
