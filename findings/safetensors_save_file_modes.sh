#!/usr/bin/env bash
# safetensors: files written by `save_file` are private (mode 0600) whatever the umask, and a link is replaced.
#
# Seen with safetensors 0.8.0 and NumPy 2.4.6 (Linux), and not with safetensors 0.5.3:
#   0.5.3: umask 022 -> 0644, a file with mode 0644 keeps it, a symbolic link is written through
#   0.8.0: umask 022 -> 0600, a file with mode 0644 becomes 0600, a symbolic link becomes a file of its own
# so a model directory written by one user cannot be read by a server that runs as another, and a checkpoint that is
# a link into a store leaves the store as it was. Bytes from `save` written by the caller have ordinary modes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat > "$folder/look.py" <<'PYTHON'
import os
import sys

import numpy as np
import safetensors
from safetensors.numpy import save_file

os.chdir(sys.argv[1])
os.umask(0o022)
tensors = {"a": np.zeros(4, dtype=np.float32)}
mode = lambda path: oct(os.stat(path).st_mode & 0o777)
save_file(tensors, "fresh")
with open("kept", "wb"):
    pass
os.chmod("kept", 0o644)
save_file(tensors, "kept")
os.symlink("fresh", "link")
save_file(tensors, "link")
print(safetensors.__version__, "fresh", mode("fresh"), "overwritten", mode("kept"), "link", os.path.islink("link"))
PYTHON
found=""
for version in 0.5.3 0.8.0; do
    python3 -m venv "$folder/$version"
    "$folder/$version/bin/pip" install --quiet "safetensors==$version" numpy==2.4.6
    mkdir "$folder/files-$version"
    found+=$("$folder/$version/bin/python" "$folder/look.py" "$folder/files-$version")$'\n'
done
printf '%s' "$found"
expected='0.5.3 fresh 0o644 overwritten 0o644 link True
0.8.0 fresh 0o600 overwritten 0o600 link False
'
[ "$found" = "$expected" ] || { echo "the behaviour has changed"; exit 1; }
