"""The command line `aiocop-collector`: cli.py declares the commands, one file each does the work."""
