#!/bin/sh
# Stands for the Python that makes environments, and for the one in them: notes what it is asked in $CALLS.
echo "$@" >> "$CALLS"
case "$*" in
    "-m venv --clear "*) mkdir -p "$4/bin" && cp "$0" "$4/bin/python" ;;
    *" $STUB_FAILS"*) echo "ERROR: no matching distribution"; exit 1 ;;
    *" $STUB_HANGS"*) sleep 600 & echo "Collecting $STUB_HANGS"; sleep 600 ;;
esac
