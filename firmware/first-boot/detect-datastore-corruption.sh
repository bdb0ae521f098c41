#!/bin/sh
# Prints what k3s says of a damaged datastore, if the log on its input has it: sqlite's words for SQLITE_CORRUPT and
# SQLITE_NOTADB.
grep -o -e 'database disk image is malformed' -e 'file is not a database' | tail -n 1
