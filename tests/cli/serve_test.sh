#!/usr/bin/env bash
# wels serve and wels keys: flags, the examples of docs/api.md, the clients that people use, TLS, keys, kill -9, draining; with a
# model of a few seconds' training: enough that it no longer ends an answer or a thought before it begins.
here=$(cd "$(dirname "$0")/../.." && pwd)
. "$(dirname "$0")/common.sh"
command -v curl >/dev/null || { echo "skipped: no curl"; exit 77; }
cd "$scratch"
seq 1 30000 | sed 's/$/ cats sat on the mat./' > text.txt
"$wels" pretrain text.txt --out run --preset nano --seq 64 --batch-tokens 512 --micro-batch 512 --vocab 400 --steps 80 \
  --sample-every 0 >log 2>&1 || { cat log; fail "training"; }
server=
trap '[ -z "$server" ] || kill -9 "$server" 2>/dev/null; rm -rf "$scratch"' EXIT
# serve FLAGS...: a server in the background; its address is in $url.
serve() {
  : >address
  "$wels" serve run --template deepseek-v3.1 --port 0 "$@" >address 2>server.log & server=$!
  for _ in $(seq 600); do
    [ -s address ] && break
    kill -0 "$server" 2>/dev/null || { cat server.log; fail "the server did not start: $*"; }
    sleep 0.1
  done
  url=$(cat address)
}
stop() { kill -TERM "$server"; wait "$server" || { cat server.log; fail "SIGTERM ended with $?"; }; server=; }
has() { grep -qF -- "$1" "$2" || { cat "$2"; fail "no '$1' in $2"; }; }
expect() {  # PATTERN COMMAND...: exit code 2 and one line that matches
  local pattern=$1 code=0
  shift
  "$@" >out 2>err || code=$?
  [ "$code" -eq 2 ] && grep -E '^error: ' err | grep -qE "$pattern" || { cat err; fail "no '$pattern', code $code: $*"; }
}

# --- The models that come with wels know what models/README.md says of them.
"$wels" eval "$here/models/micro" --task path:6,expressions:3 --items 20 --max-tokens 320 >out 2>&1 || { cat out; fail "models/micro"; }
grep -qE '^greedy +accuracy (0\.[89]|1)' out || { cat out; fail "models/micro finds fewer ways than it did"; }
"$wels" eval "$here/models/nano" --task addition:8 --items 40 >out 2>&1 || { cat out; fail "models/nano"; }
grep -qE '^greedy +accuracy (0\.9|1)' out || { cat out; fail "models/nano adds worse than it did"; }

# --- Bad input.
expect 'can be reached from elsewhere.*--keys' "$wels" serve run --host 0.0.0.0
expect 'is no IP address' "$wels" serve run --host 127.x
expect 'belong together' "$wels" serve run --tls-cert text.txt
expect 'text.txt: is no PEM certificate' "$wels" serve run --tls-cert text.txt --tls-key text.txt
expect 'text.txt: ' "$wels" serve run --keys text.txt
expect 'does not exist' "$wels" serve nothing
expect '/nowhere: is no folder' "$wels" serve run --runs /nowhere
expect 'is no price' "$wels" serve run --keys k.db --price-hit -1
expect "there is no 'bob'" "$wels" keys credit k.db bob 3
expect "'x' is none" "$wels" keys credit k.db bob x
expect "'7' fits 0 keys" "$wels" keys revoke k.db 7

# --- The examples of docs/api.md, each a block of its language.
serve
question='{"model":"deepseek-chat","messages":[{"role":"user","content":"one cat"}],"max_tokens":5}'
json=(-H 'Content-Type: application/json')
curl -sf "$url/health" >/dev/null || fail "not healthy"
[ "$(curl -s -o /dev/null -w '%{http_code}' "$url/nowhere")" = 404 ] || fail "not 404"
expect 'cannot listen: Address already in use' "$wels" serve run --port "${url##*:}"
awk -v out="$scratch/example" '/^```(sh|python|js)$/ { lang = substr($0, 4); file = out (++n) "." lang; next }
  /^```/ { file = "" } file { print > file }' "$here/docs/api.md"
sed -i "s#http://127.0.0.1:8080#$url#" example*
[ "$(ls example*.sh | wc -l)" -ge 2 ] || fail "docs/api.md has lost its examples"
for f in example*.sh; do bash -e "$f" >out || { cat "$f"; fail "an example of docs/api.md"; }; has '"finish_reason"' out; done
if command -v python3 >/dev/null; then
  for f in example*.python; do python3 "$f" >out || { cat "$f" out; fail "an example of docs/api.md"; }; [ -s out ] || fail "$f prints nothing"; done
else
  echo "left out: the Python examples, no python3 here"
fi
clients=$here/tests/clients
if command -v node >/dev/null && [ -d "$clients/node_modules" ]; then
  for f in example*.js; do
    cp "$f" "$clients/.example.mjs"
    node "$clients/.example.mjs" >out 2>&1 || { cat out; rm -f "$clients/.example.mjs"; fail "an example of docs/api.md"; }
    rm -f "$clients/.example.mjs"
  done
  (cd "$clients" && WELS_URL=$url node --test *.test.mjs) >clients.log 2>&1 || { cat clients.log; fail "a client"; }
  grep -E '^# (tests|pass)' clients.log
else
  echo "left out: the npm clients; they need node and (cd tests/clients && npm ci)"
fi
# wels chat with a server: the text that the model gives at this machine, turns, commands, errors.
echo "one cat" | "$wels" chat run --template deepseek-v3.1 --temperature 0 -n 9 >here 2>/dev/null
"$wels" chat --url "$url" "one cat" --temperature 0 -n 9 >there || fail "chat --url"
cmp here there || { cat here there; fail "the server's answer differs"; }
printf 'one cat\n/set verbose\nand a dog\n/save talk.json\n' | "$wels" chat --url "$url/v1/" --temperature 0 -n 9 >out 2>err || fail "chat --url"
has 'saved 4 messages' out
has 'prompt ' err
[ "$(grep -c '"role"' talk.json)" -eq 4 ] || grep -o '"role"' talk.json | wc -l | grep -qx 4 || fail "talk.json"
"$wels" chat --url "$url" --think "one cat" -n 9 --temperature 0 >out || fail "chat --url --think"
grep -qaF '<think>' out || { cat out; fail "no <think>"; }
expect 'answers 400: .*you passed nobody' "$wels" chat --url "$url" --model-name nobody "one cat"
expect 'is no address of a server' "$wels" chat --url somewhere "one cat"
expect 'do not go together' "$wels" chat run "one cat" --url "$url"
expect 'a server cannot be asked for this' "$wels" chat --url "$url" --think-min 3 "one cat"
expect 'a server cannot be asked for this' "$wels" chat --url "$url" --rephrase 2 "one cat"
"$wels" chat --url "$url" --think --think-budget 0 "one cat" -n 9 >out || fail "chat --url --think-budget"
expect 'is a server running there' "$wels" chat --url http://127.0.0.1:1 "one cat"
expect 'needs a model' "$wels" chat </dev/null
# A request under way is answered after SIGTERM, new ones are not.
curl -sN "$url/chat/completions" "${json[@]}" -d "${question/5\}/200,\"stream\":true\}}" >stream &
curl_pid=$!
for _ in $(seq 200); do [ -s stream ] && break; sleep 0.02; done
stop
wait "$curl_pid" || fail "the stream was cut by SIGTERM"
has 'data: [DONE]' stream

# --- The page, and several models.
cp -r run other
expect 'would be named run' "$wels" serve run run
expect 'more names than models' "$wels" serve run --name a --name b
expect 'is named deepseek-chat' "$wels" serve run other --name a --name deepseek-chat
expect 'does not exist' "$wels" serve run nothing
serve other --name first --idle-minutes 0.02
curl -s --compressed "$url/" >body
has '<!doctype html>' body
curl -s "$url/ui/config.json" >body
has '"name":"first"' body
has '{"id":"other","thinking":false}' body
curl -s "$url/models" >body
has '"id":"other"' body
for model in other first deepseek-reasoner other; do
  curl -s "$url/chat/completions" "${json[@]}" -d "${question/deepseek-chat/$model}" >body
  has "\"model\":\"$model\"" body
  has '"completion_tokens":' body
done
curl -s "$url/chat/completions" "${json[@]}" -d "${question/\{/\{\"inside\":true,}" >body
id=$(sed 's/^{"id":"\([^"]*\)".*/\1/' body)
curl -s "$url/ui/inside/$id" >body
has '"part":"answer"' body
has '"experts":[[' body
[ "$(curl -s -o body -w '%{http_code}' "$url/ui/inside/nobody")" = 404 ] || fail "an unknown answer is not 404"
for _ in $(seq 200); do grep -q 'other is unloaded' server.log && break; sleep 0.1; done
has 'other is unloaded' server.log
stop

# --- Keys and TLS.
key=$("$wels" keys create accounts.db alice --label laptop 2>/dev/null)
[[ $key =~ ^sk-[0-9a-f]{64}$ ]] || fail "key '$key'"
! grep -qa "$key" accounts.db* || fail "the key itself is in the file"
tls=()
if command -v openssl >/dev/null; then
  openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 1 -subj /CN=localhost \
    -addext subjectAltName=IP:127.0.0.1 2>/dev/null
  tls=(--tls-cert cert.pem --tls-key key.pem)
  CURL_CA_BUNDLE=$scratch/cert.pem; export CURL_CA_BUNDLE
else
  echo "left out: TLS, no openssl here"
fi
serve --keys accounts.db --price-miss 1000 --price-hit 100 --price-output 2000 "${tls[@]}"
status() { curl -s -o body -w '%{http_code}' "$url/chat/completions" "${json[@]}" -d "$question" "$@"; }
[ "$(status)" = 401 ] || fail "no key: not 401"
[ "$(status -H 'Authorization: Bearer sk-nonsense')" = 401 ] || fail "wrong key: not 401"
has '****ense is invalid' body
[ "$(status -H "Authorization: Bearer $key")" = 402 ] || fail "no money: not 402"
"$wels" keys credit accounts.db alice 10 >out
has 'alice has 10.00' out
[ "$(status -H "Authorization: Bearer $key")" = 200 ] || { cat body; fail "not 200"; }
CURL_CA_BUNDLE= expect "answers 401|certificate" "$wels" chat --url "$url" "one cat"
curl -s "$url/user/balance" -H "Authorization: Bearer $key" >body
has '"currency":"USD"' body
! grep -q '"total_balance":"10.00"' body || fail "nothing was charged"
# Killed in the middle of requests: the ledger adds up, the next server goes on with it.
for _ in 1 2 3 4 5 6; do status -H "Authorization: Bearer $key" >/dev/null & done
sleep 0.05
kill -9 "$server"; wait 2>/dev/null || true
"$wels" keys list accounts.db >out || fail "the ledger does not add up"
has 'alice' out
serve --keys accounts.db
"$wels" keys revoke accounts.db 1 >/dev/null
unset CURL_CA_BUNDLE
[ "$(status -H "Authorization: Bearer $key")" = 401 ] || fail "a revoked key still opens"
stop
echo "serve: all as expected"
