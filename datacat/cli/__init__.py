"""The command line: datacat with one file for each subcommand, datacat-server, datacat-daemon."""
