"""The command line: one file per command, argparse to call, no logic."""
