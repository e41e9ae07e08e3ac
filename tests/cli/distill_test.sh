#!/usr/bin/env bash
# wels distill in its three modes, from an MoE teacher to a dense student; kill -9 while answers are collected; an endpoint; bad input.
. "$(dirname "$0")/common.sh"
cd "$scratch"
"$wels" sft --preset nano --task parity:6 --p-cot 0.5 --steps 100 --batch 64 --sample-every 0 --out teacher >/dev/null 2>&1
answers=(distill --preset nano --dense --mtp 0 --teacher teacher --task parity:6 --questions 96 --tries 4 --max-tokens 32 --batch 16 \
  --steps 4 --sample-every 0)

# (a) The teacher's right answers, then supervised learning; killed while it collects, and gone on with the same.
"$wels" "${answers[@]}" --answers-only --ui --out page > out.txt 2>err.txt || { cat err.txt; fail "--answers-only"; }
grep -q 'http://127.0.0.1:' out.txt || { cat out.txt; fail "no page while answers are collected"; }
grep -q '"status": *"finished"' page/run.json || { cat page/run.json; fail "the page does not say that it ended"; }
grep -q 'the teacher answers' page/run.json || { cat page/run.json; fail "the page does not say what goes on"; }
"$wels" "${answers[@]}" --out text > out.txt 2>err.txt || { cat err.txt; fail "mode sft"; }
grep -qE '96 questions, [0-9]+ solved' err.txt || fail "no summary of the answers"
grep -q '"role":"assistant"' text/answers/block-000000.jsonl || fail "no answers"
"$wels" generate text hello --max-tokens 2 >/dev/null 2>&1 || fail "the student does not run"
"$wels" "${answers[@]}" --answers-only --out killed >/dev/null 2>&1 & pid=$!
for _ in $(seq 2400); do [ -s killed/answers/block-000000.jsonl ] && break; sleep 0.02; done
kill -9 "$pid" 2>/dev/null || true
wait "$pid" 2>/dev/null || true
"$wels" "${answers[@]}" --answers-only --out killed >/dev/null 2>&1
cat text/answers/*.jsonl | cmp - <(cat killed/answers/*.jsonl) || fail "answers collected in two parts differ"

# (b) Its distributions over examples, (c) over the student's own answers; resumed to the same bits.
logits=(distill --preset nano --dense --mtp 0 --teacher teacher --mode logits --task parity:6 --batch 16 --sample-every 0 --save-every 4 \
  --steps 8 --alpha 0.3 --kl-temperature 1.5)
"$wels" "${logits[@]}" --out logits >/dev/null 2>err.txt || { cat err.txt; fail "mode logits"; }
grep -q '"teacher_kl"' logits/metrics.jsonl || fail "metrics.jsonl lacks teacher_kl"
own=(distill logits --teacher teacher --mode on-policy --task parity:6 --batch 8 --sample-every 0 --save-every 2 --steps 4 --max-tokens 16 \
  --eval-items 16)
"$wels" "${own[@]}" --out own >/dev/null 2>err.txt || { cat err.txt; fail "mode on-policy"; }
"$wels" "${own[@]}" --out again --threads 1 >/dev/null 2>&1 & pid=$!
for _ in $(seq 2400); do ls again/checkpoints/step-* >/dev/null 2>&1 && break; sleep 0.02; done
kill -9 "$pid" 2>/dev/null || true
wait "$pid" 2>/dev/null || true
"$wels" "${own[@]}" --out again >/dev/null 2>&1
digest() { cat "$1"/checkpoints/step-00000004/{model,trainer}.safetensors | sha256sum; }
[ "$(digest own)" = "$(digest again)" ] || fail "killed and resumed: other bits"

# An endpoint: a stub that fails once, then answers; one that lies about its model.
if command -v python3 >/dev/null; then
  cat > stub.py <<'PY'
import http.server, json, os, signal, sys
class H(http.server.BaseHTTPRequestHandler):
    calls = 0
    last = 4  # the question at which the stopper sends Ctrl-C
    def reply(self, code, o):
        b = json.dumps(o).encode()
        self.send_response(code); self.send_header("Content-Length", str(len(b))); self.end_headers(); self.wfile.write(b)
    def do_GET(self): self.reply(200, {"data": [{"id": "oracle"}, {"id": "liar"}, {"id": "stopper"}]})
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        H.calls += 1
        if H.calls == 1: return self.reply(503, {})
        if H.calls == 3: return self.reply(400, {"error": "content filter"})
        if asked["model"] == "stopper":
            H.last -= 1
            if H.last == 0: os.kill(int(open("pid").read()), signal.SIGINT)
        bits = "".join(c for c in asked["messages"][-1]["content"] if c in "01")
        name = "another" if asked["model"] == "liar" else asked["model"]
        self.reply(200, {"model": name, "choices": [{"finish_reason": "stop", "message": {"role": "assistant",
          "reasoning_content": "count", "content": str(bits.count("1") % 2)}}]})
    def log_message(self, *a): pass
s = http.server.ThreadingHTTPServer(("127.0.0.1", 0), H)
print(s.server_port, flush=True)
s.serve_forever()
PY
  python3 stub.py > port & stub=$!
  trap 'kill $stub 2>/dev/null; rm -rf "$scratch"' EXIT
  for _ in $(seq 200); do [ -s port ] && break; sleep 0.05; done
  url="http://127.0.0.1:$(cat port)/v1"
  "$wels" distill --preset nano --teacher-url "$url" --teacher-model oracle --task parity:6 --questions 8 --tries 1 --answers-only \
    --out endpoint >out.txt 2>err.txt || { cat err.txt; fail "endpoint"; }
  grep -q 'trying again' err.txt || fail "a failure of the endpoint is not said"
  grep -q 'a question is skipped: .*status 400: .*content filter' err.txt || fail "a refused question is not said"
  grep -q '"refused":1,' endpoint/answers/block-000000.json || fail "a refused question is not counted"
  [ "$(cat endpoint/answers/*.jsonl | grep -c '<think>count</think>')" -eq 7 ] || fail "not all answers of the endpoint are kept"

  # Ctrl-C while the last answer comes: nothing is learned yet, and the same command goes on.
  stopper=("$wels" distill --preset nano --mtp 0 --teacher-url "$url" --teacher-model stopper --task parity:6 --questions 4 --tries 1 \
    --parallel 1 --batch 2 --steps 2 --sample-every 0 --out stopper)
  "${stopper[@]}" >out.txt 2>err.txt & pid=$!
  echo "$pid" > pid
  code=0; wait "$pid" || code=$?
  [ "$code" -eq 130 ] && grep -q 'the same command goes on' out.txt || { cat out.txt err.txt; fail "Ctrl-C at the last answer ended with $code"; }
  [ ! -e stopper/checkpoints ] || fail "Ctrl-C at the last answer was forgotten"
  "${stopper[@]}" >/dev/null 2>err.txt || { cat err.txt; fail "going on after Ctrl-C at the last answer"; }
  [ -e stopper/checkpoints/step-00000002 ] || fail "nothing was learned after Ctrl-C"
fi

# wels serve as the teacher: another model's name, a server killed in the middle that comes back, a client killed in the middle.
server=
trap 'kill -9 ${stub:-} $server 2>/dev/null; rm -rf "$scratch"' EXIT
serve() {  # PORT: in the background; its address is in $at
  : > address
  "$wels" serve teacher --name teacher --port "$1" > address 2>server.log & server=$!
  for _ in $(seq 600); do [ -s address ] && break; kill -0 "$server" 2>/dev/null || { cat server.log; fail "wels serve"; }; sleep 0.1; done
  at=$(cat address)
}
serve 0
ask=(distill --preset nano --teacher-url "$at/v1" --teacher-model teacher --task parity:6 --questions 640 --tries 2 --max-tokens 24 \
  --temperature 0 --answers-only)
code=0; "$wels" "${ask[@]/%teacher/nobody}" --out nobody >/dev/null 2>err.txt || code=$?
[ "$code" -eq 2 ] && grep -qE 'has no model nobody; it has .*teacher' err.txt || { cat err.txt; fail "another name than the server has"; }
"$wels" "${ask[@]}" --out served >/dev/null 2>err.txt || { cat err.txt; fail "wels serve as the teacher"; }
[ "$(ls served/answers/block-*.jsonl | wc -l)" -eq 10 ] || fail "not all blocks were answered"
"$wels" "${ask[@]}" --out died >/dev/null 2>err.txt & pid=$!
for _ in $(seq 2400); do [ -s died/answers/block-000000.jsonl ] && break; sleep 0.02; done
kill -9 "$server"; wait "$server" 2>/dev/null || true
for _ in $(seq 200); do grep -q 'trying again' err.txt && break; sleep 0.05; done
grep -q 'trying again' err.txt || { cat err.txt; fail "a server that died is not said"; }
kill -9 "$pid" 2>/dev/null || fail "the client was over before the server died"
wait "$pid" 2>/dev/null || true
serve "${at##*:}"
"$wels" "${ask[@]}" --out died >/dev/null 2>err.txt & pid=$!
for _ in $(seq 2400); do [ -s died/answers/block-000001.jsonl ] && break; sleep 0.02; done
kill -9 "$server"; wait "$server" 2>/dev/null || true
sleep 1
serve "${at##*:}"
wait "$pid" || { cat err.txt; fail "a server that came back"; }
cat served/answers/*.jsonl | cmp - <(cat died/answers/*.jsonl) || fail "answers of a server that died differ"
kill -TERM "$server"; wait "$server" 2>/dev/null || true
server=

# Bad input: exit code 2 and one line on stderr.
expect() {
  local pattern=$1 code=0
  shift
  "$@" >stdout.log 2>stderr.log || code=$?
  [ "$code" -eq 2 ] || { cat stderr.log; fail "exit code $code instead of 2: $*"; }
  grep -qE "$pattern" stderr.log || { cat stderr.log; fail "no error line with '$pattern': $*"; }
}
if command -v python3 >/dev/null; then
  expect 'answered as .*another.*, not as liar' "$wels" distill --preset nano --teacher-url "$url" --teacher-model liar --task parity:6 \
    --questions 2 --answers-only --out a
  expect '\-\-teacher-model: .* has no model nobody; it has oracle, liar, stopper' "$wels" distill --preset nano --teacher-url "$url" \
    --teacher-model nobody --task parity:6 --out b
fi
expect 'has no teacher; give --teacher' "$wels" distill logits --task parity:6 --out a
expect 'has two teachers' "$wels" distill logits --teacher teacher --teacher-url http://127.0.0.1:9 --task parity:6 --out a
expect 'does not say which model' "$wels" distill logits --teacher-url http://127.0.0.1:9 --task parity:6 --out a
expect 'gives text, no distributions' "$wels" distill logits --teacher-url http://127.0.0.1:9 --teacher-model m --mode logits \
  --task parity:6 --out a
expect 'failed 1 times, at last' "$wels" distill logits --teacher-url http://127.0.0.1:9 --teacher-model m --attempts 1 --task parity:6 \
  --out c
expect 'questions that a program can check' "$wels" distill logits --teacher teacher --out a
expect 'missing: does not exist' "$wels" distill logits --teacher missing --task parity:6 --out a
cp -r teacher/checkpoints/step-00000100 bare && rm bare/tokenizer.json
for mode in sft logits; do
  expect 'bare: has no tokenizer.json' "$wels" distill logits --teacher bare --mode $mode --task parity:6 --out e
done
"$wels" sft --preset nano --dense --mtp 0 --task sorting:3 --vocab 300 --steps 1 --batch 2 --sample-every 0 --out other >/dev/null 2>&1
expect 'learn from the teacher.s text instead' "$wels" distill other --teacher teacher --mode logits --task parity:6 --out d
# More questions complete a folder, its short last block anew.
more=("${answers[@]/#96/100}")
"$wels" "${more[@]}" --answers-only --out killed >/dev/null 2>&1 || fail "more questions"
"$wels" "${more[@]}" --answers-only --out fresh >/dev/null 2>&1 || fail "100 questions"
cat fresh/answers/*.jsonl | cmp - <(cat killed/answers/*.jsonl) || fail "96 questions and 4 more are not 100"
expect 'has answers to 100 questions, not 96; ask 100 again, or 64' "$wels" "${answers[@]}" --answers-only --out killed
for left in d e; do [ ! -e "$left" ] || fail "a refused command has left $left"; done
expect 'has answers to tries 4, not 5' "$wels" "${answers[@]/#4/5}" --answers-only --out killed
echo "distill: text, distributions and own answers; resumes; refuses bad input"
