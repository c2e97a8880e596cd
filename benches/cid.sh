#!/usr/bin/env bash
# Holds the addresses of `worker cid` against another implementation's, npm's ipfs-unixfs-importer, for
# files around the sizes where the tree changes its shape, in both versions; and tells how fast each is.
# Exits 1 if one address differs.
#
# Needs Linux, bash 5, node 20 or newer and npm, which takes the packages from its registry into the
# target directory. The bytes of the files are the same in every run.
#
#   SIZES="0 1 262144" benches/cid.sh
set -euo pipefail
export LC_ALL=C
cd "$(dirname "$0")/.."

# One chunk is 262,144 bytes, a node of 174 chunks is 45,613,056.
SIZES=${SIZES:-0 1 262143 262144 262145 10485760 45613056 45613057 104857600}
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
worker=$target/release/worker
reference=$target/ipfs-unixfs-importer

cargo build --release --locked --quiet

mkdir -p "$reference"
cat >"$reference/package.json" <<'END'
{ "private": true, "type": "module",
  "dependencies": { "ipfs-unixfs-importer": "17.1.1", "multiformats": "14.0.5" } }
END
cat >"$reference/cid.js" <<'END'
import { createReadStream } from 'node:fs'
import { importer } from 'ipfs-unixfs-importer'
import { fixedSize } from 'ipfs-unixfs-importer/chunker'
import { balanced } from 'ipfs-unixfs-importer/layout'

const [version, path] = process.argv.slice(2)
// The blocks themselves are not needed.
const nowhere = { put: async cid => cid }
const how = {
  cidVersion: Number(version),
  rawLeaves: version === '1',
  chunker: fixedSize({ chunkSize: 262144 }),
  layout: balanced({ maxChildrenPerNode: 174 })
}
const begin = performance.now()
for await (const { cid } of importer([{ content: createReadStream(path) }], nowhere, how)) {
  console.log(`${cid} ${performance.now() - begin}`)
}
END
npm install --prefix "$reference" --no-audit --no-fund --silent

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

# The keystream of AES under a fixed key.
seeded() {
    node -e '
        const cipher = require("node:crypto").createCipheriv("aes-128-ctr", Buffer.alloc(16, 7), Buffer.alloc(16))
        for (let left = Number(process.argv[1]); left > 0; left -= 1048576)
            require("node:fs").writeSync(1, cipher.update(Buffer.alloc(Math.min(left, 1048576))))
    ' "$1"
}

# bytes and milliseconds, as MB/s; of little files the time is that of starting.
speed() {
    if [ "$1" -lt 10000000 ]; then echo -; else awk "BEGIN { printf \"%.0f\", $1 / $2 / 1000 }"; fi
}

differs=0
printf '%9s  %-2s  %-59s  %-7s  %8s  %9s\n' BYTES V ADDRESS '' 'OUR MB/s' 'THEIR MB/s'
for size in $SIZES; do
    file=$dir/$size
    seeded "$size" >"$file"
    [ "$(stat -c %s "$file")" = "$size" ] || { echo "cid: $file was not written" >&2; exit 1; }
    for version in 0 1; do
        flag=()
        [ "$version" = 1 ] || flag=(--v0)
        begin=${EPOCHREALTIME/./}
        read -r ours bytes _ < <("$worker" cid "${flag[@]}" "$file")
        end=${EPOCHREALTIME/./}
        read -r theirs took < <(node "$reference/cid.js" "$version" "$file")
        verdict=equal
        if [ "$ours" != "$theirs" ] || [ "$bytes" != "$size" ]; then
            verdict=DIFFERS differs=1
        fi
        ms=$(awk "BEGIN { print ($end - $begin) / 1000 }")
        printf '%9s  v%s  %-59s  %-7s  %8s  %9s\n' "$size" "$version" "$ours" "$verdict" \
            "$(speed "$size" "$ms")" "$(speed "$size" "$took")"
    done
    rm "$file"
done
exit "$differs"
