#!/bin/bash
# Whether the loader processes of a killed training keep its lock depends on filelock's version.
#
# Guess: a lock of filelock goes with the process that took it, in every version.
# Behaviour: up to 3.29 a forked child inherits the locked descriptor, so that loader processes which
#   outlive a killed run hold its lock until they end; from 3.30 on the child's copy is closed when
#   it is forked, and the lock is free at once.
# Versions: filelock 3.29.0, 3.30.0 and 4.2.11, Python 3.11, Linux.
# Why it matters here: PyTorch's loaders fork on Linux. After a SIGKILL the same command, typed
#   again, meets "another process is at work" with an older filelock, such as notebooks bring along.
#   So a lock is waited for some seconds before a command gives up.
#
# Prints what the next process finds; exits with 1 if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat > "$folder/killed.py" <<'EOF'
import multiprocessing
import os
import sys
import time

from filelock import FileLock, Timeout

fork = multiprocessing.get_context("fork")
path, wanted = sys.argv[1:]


def train() -> None:
    """Take the lock, start a loader process that lives on, and die."""
    lock = FileLock(path)  # a lock that nobody refers to would be released
    lock.acquire()
    fork.Process(target=time.sleep, args=(5,)).start()
    os._exit(0)


run = fork.Process(target=train)
run.start()
run.join()
try:
    FileLock(path).acquire(timeout=0.5)
    found = "free"
except Timeout:
    found = "held"
print(found)
sys.exit(found != wanted)
EOF
for known in 3.29.0=held 3.30.0=free 4.2.11=free; do
  version=${known%=*}
  python3 -m venv "$folder/$version"
  "$folder/$version/bin/pip" install --quiet "filelock==$version"
  printf 'filelock %s: ' "$version"
  "$folder/$version/bin/python" "$folder/killed.py" "$folder/$version.lock" "${known#*=}"
done
