# Shared by the end-to-end tests: the program under test, a scratch folder, and checks that say what they expected.
set -euo pipefail
export no_proxy=127.0.0.1,localhost NO_PROXY=127.0.0.1,localhost  # servers of the tests are on this machine
unset FORCE_COLOR
wels=$1
data=${WELS_DATA:-../shared/data}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
fail() { echo "FAILED: $*" >&2; exit 1; }
# writing PID FILE: whether the process has begun to write FILE, in a file that has no name yet (or, on some file systems, one of its own).
writing() {
  local f
  for f in "/proc/$1"/fd/*; do case $(readlink "$f") in "$2".*.tmp | *"/#"*" (deleted)") [ -s "$f" ] && return 0 ;; esac; done
  return 1
}
need_data() {
  [ -f "$data/$1" ] && return 0
  echo "skipped: no $data/$1; set WELS_DATA to the folder of the corpora"
  exit 77
}
