"""The command line: `splatrender train`, `splatrender render`, `splatrender regress`."""
