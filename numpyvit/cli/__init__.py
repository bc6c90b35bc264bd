"""The `numpyvit` command.

main.py is the entry point; each command has a file with its options (`add_parser`) and
its work (`run`); options.py and inputs.py hold what several commands share.
"""
