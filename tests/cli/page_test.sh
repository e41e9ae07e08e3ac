#!/usr/bin/env bash
# The page in a browser: Playwright drives Debian's Chromium against a server that is made up (all of it), then against wels serve and
# wels ui.
here=$(cd "$(dirname "$0")/../.." && pwd)
. "$(dirname "$0")/common.sh"
web=$here/web
skip() { echo "skipped: $1"; exit 77; }
command -v node >/dev/null || skip "no node"
node -e 'const [a, b] = process.versions.node.split("."); process.exit(a > 20 || (a == 20 && b >= 19) ? 0 : 1)' ||
  skip "node $(node --version) is older than 20.19, which Vite wants"
[ -d "$web/node_modules" ] || skip "no web/node_modules: (cd web && npm ci)"
for b in chromium chromium-browser google-chrome ""; do [ -n "$b" ] || [ -n "${CHROMIUM:-}" ] || skip "no Chromium"; command -v "$b" >/dev/null && break; done
export CHROMIUM=${CHROMIUM:-$(command -v "$b")}
(cd "$web" && npm test) >"$scratch/log" 2>&1 || { tail -80 "$scratch/log"; fail "npm test"; }
grep -E '^ +[0-9]+ passed' "$scratch/log"

cd "$scratch"
seq 1 3000 | sed 's/$/ cats sat on the mat./' > text.txt
"$wels" pretrain text.txt --out run --preset nano --seq 64 --batch-tokens 512 --micro-batch 512 --vocab 400 --steps 20 \
  --eval-every 10 --sample-every 10 >log 2>&1 || { cat log; fail "training"; }
server=
trap '[ -z "$server" ] || kill -9 "$server" 2>/dev/null; rm -rf "$scratch"' EXIT
drive() { # ARGUMENTS...: the page of this command
  : >address
  "$wels" "$@" >address 2>server.log & server=$!
  for _ in $(seq 600); do [ -s address ] && break; kill -0 "$server" 2>/dev/null || { cat server.log; fail "$*"; }; sleep 0.1; done
  (cd "$web" && WELS_URL=$(grep -oE 'https?://[^ ]+' "$scratch/address" | head -1) npx playwright test) >log 2>&1 || { tail -60 log; fail "the page of wels $1"; }
  grep -E '^ +[0-9]+ (passed|skipped)' log
  kill -TERM "$server"; wait "$server" || true; server=
}
drive serve run --template deepseek-v3.1 --port 0
drive ui run --port 0
echo "page: all as expected"
