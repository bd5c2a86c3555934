#!/bin/sh
set -eu
# Over TCP: while the database initialises itself it listens on its socket only.
pg_isready --quiet --host 127.0.0.1 --username "${POSTGRES_USER:-postgres}"
