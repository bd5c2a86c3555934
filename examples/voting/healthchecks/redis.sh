#!/bin/sh
set -eu
[ "$(redis-cli -h "$(hostname)" ping)" = PONG ]
