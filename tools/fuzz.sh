#!/usr/bin/env bash
# Builds the fuzz targets and runs each for SECONDS; a crash, a leak or a hang fails. Findings are left in build/fuzz/findings.
set -euo pipefail
seconds=${1:-15}
cmake --preset fuzz >/dev/null
cmake --build --preset fuzz --target fuzzers
mkdir -p build/fuzz/findings
for target in build/fuzz/*_fuzz; do
  name=$(basename "$target")
  mkdir -p "build/fuzz/corpus/$name"
  echo "fuzzing $name"
  "$target" "build/fuzz/corpus/$name" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=4096 -artifact_prefix=build/fuzz/findings/ \
    >"build/fuzz/$name.log" 2>&1 || { tail -n 40 "build/fuzz/$name.log"; echo "error: $name found something" >&2; exit 1; }
  grep -E "^Done|^stat::number_of_executed" "build/fuzz/$name.log" || true
done
