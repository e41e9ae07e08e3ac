#!/usr/bin/env bash
# wels ui and --ui: a run that is followed while it learns, runs that are looked at afterwards, and what can't be served.
. "$(dirname "$0")/common.sh"
command -v curl >/dev/null || { echo "skipped: no curl"; exit 77; }
cd "$scratch"
seq 1 30000 | sed 's/$/ cats sat on the mat./' > text.txt
small=(--preset nano --seq 64 --batch-tokens 512 --micro-batch 512 --vocab 400 --sample-every 2)
server=
trap '[ -z "$server" ] || kill -9 "$server" 2>/dev/null; rm -rf "$scratch"' EXIT
has() { grep -qF -- "$1" "$2" || { cat "$2"; fail "no '$1' in $2"; }; }
expect() {  # PATTERN COMMAND...: exit code 2 and one line that matches
  local pattern=$1 code=0
  shift
  "$@" >out 2>err || code=$?
  [ "$code" -eq 2 ] && grep -E '^error: ' err | grep -qE "$pattern" || { cat err; fail "no '$pattern', code $code: $*"; }
}
address() {  # of the process $server, which writes into $1
  for _ in $(seq 600); do
    url=$(sed -n 's#^training page: \(http://[^ ]*\)/$#\1#p' "$1" 2>/dev/null || true)  # not yet there
    [ -n "$url" ] && return
    kill -0 "$server" 2>/dev/null || { cat "$1" err; fail "nothing is served"; }
    sleep 0.1
  done
  fail "no address"
}
status() { curl -s -o body -w '%{http_code}' --path-as-is "$@"; }

# --- A run that learns: its lines come as events, to the end.
"$wels" pretrain text.txt --out run "${small[@]}" --steps 40 --ui >log 2>err & server=$!
address log
curl -s "$url/ui/config.json" >body
has '"mode":"training"' body
for _ in $(seq 3000); do curl -s "$url/ui/runs" >body && grep -q '"running":true' body && break; kill -0 "$server" || break; sleep 0.02; done
has '"id":"run"' body
has '"running":true' body
curl -sN --max-time 300 "$url/ui/runs/run/events" >events || fail "the events broke off"
wait "$server" || { cat log err; fail "training"; }
server=
has 'id: 40' events
has 'event: end' events
has '"loss":' events
# The page changes nothing of what is learned.
"$wels" pretrain text.txt --out alone "${small[@]}" --steps 40 >log 2>&1 || { cat log; fail "training"; }
cmp run/checkpoints/step-00000040/model.safetensors alone/checkpoints/step-00000040/model.safetensors || fail "the page changed the run"

# --- Runs of folders.
"$wels" ui run alone --port 0 >log 2>err & server=$!
address log
[ "$(status "$url/")" = 200 ] || fail "no page"
curl -s "$url/ui/runs" >body
has '"id":"alone"' body
has '"step":40,"steps":40' body
has '"status":"finished"' body
! grep -q "$scratch" body || fail "the list tells paths"
[ "$(curl -s "$url/ui/runs/run/metrics?after=30" | wc -l)" -eq 10 ] || fail "not the last ten lines"
curl -s -D head "$url/ui/runs/run/metrics?points=1500" >body
cmp body run/metrics.jsonl || fail "not all lines"
has 'Wels-Running: 0' head
place=$(sed -n 's/^Wels-Next: \([0-9a-f-]*\).*/\1/p' head)
[ "$(curl -s "$url/ui/runs/run/metrics?points=1500&after=$place" | wc -c)" -eq 0 ] || fail "nothing is new, but lines came"
curl -s "$url/ui/runs/run/events?after=39" >body
has 'id: 40' body
has 'event: end' body
curl -s "$url/ui/runs/run/samples" >body
has '"step":40' body
curl -s "$url/ui/runs/run/experts" >body
has '"layers":[1' body
has '"experts":8' body
for path in /ui/runs/nobody/metrics /ui/runs/../run/run.json /ui/runs/run/../../log /ui/runs/%2e%2e/metrics /nowhere; do
  [ "$(status "$url$path")" = 404 ] || fail "$path is not 404"
done
[ "$(status -H 'Host: evil.example' "$url/ui/runs")" = 403 ] || fail "another host's name is not 403"
expect 'cannot listen: Address already in use; choose another --port$' "$wels" ui run --port "${url##*:}"
expect '\-\-ui: 127.0.0.1:[0-9]*: cannot listen: Address already in use' "$wels" pretrain text.txt --out busy "${small[@]}" --ui "${url##*:}"
[ ! -d busy/checkpoints ] || fail "training began in spite of the port"
kill -TERM "$server"; wait "$server" || fail "SIGTERM ended with $?"
server=

# --- Their report, of the folder that holds them; a killed one is not running.
mkdir both && cp -r run both/one && cp -r run both/two
sed -i 's/"status": "finished"/"status": "running"/; s/"name": "run"/"name": "killed"/' both/two/run.json
"$wels" report both -o both.html >body || fail "report of a folder of runs"
has '| run | 40 |' body
has '| killed | 40 |' body
has '"name":"killed","status":"stopped"' both.html
expect 'both: is a folder; name the file to write: both/report.html' "$wels" report run -o both

# --- Bad input.
mkdir nothing
expect 'nothing: is no run folder and holds none' "$wels" ui nothing
expect 'missing: is no folder' "$wels" ui run missing
expect 'text.txt: is no folder' "$wels" ui text.txt
expect "'x1' is no port" "$wels" pretrain text.txt --out run "${small[@]}" --steps 40 --ui x1
expect "'70000' is no port" "$wels" pretrain text.txt --out run "${small[@]}" --steps 40 --ui 70000
echo "ui: all as expected"
