#!/usr/bin/env bash
# wels tasks: lists, shows and writes examples; the same ones for the same seed, held-out ones apart, and every kind of bad input
# named in one line.
. "$(dirname "$0")/common.sh"
cd "$scratch"

# expect PATTERN ARGS...: exit code 2 and one line on stderr that matches.
expect() {
  local pattern=$1 code=0
  shift
  "$wels" tasks "$@" >out.log 2>err.log || code=$?
  [ "$code" -eq 2 ] || { cat err.log; fail "exit code $code instead of 2: $*"; }
  [ "$(grep -c '^error: ' err.log)" -eq 1 ] || { cat err.log; fail "not one error line: $*"; }
  grep -E '^error: ' err.log | grep -qE -- "$pattern" || { cat err.log; fail "no error line with '$pattern': $*"; }
}
lines() { [ "$(wc -l < "$1")" -eq "$2" ] || fail "$1 has $(wc -l < "$1") lines, not $2"; }

# --- The list names every task, and every name works.
"$wels" tasks > list.log || fail "the list"
names=$(sed '/^$/,$d' list.log | cut -d' ' -f1)
[ "$(echo "$names" | wc -l)" -ge 18 ] || { cat list.log; fail "tasks are missing"; }
for name in $names; do
  "$wels" tasks "$name" --count 3 > "$name.log" || fail "$name"
  [ "$(grep -c "^--- $name " "$name.log")" -eq 3 ] || { cat "$name.log"; fail "$name: not three examples"; }
  grep -q '<think>.*</think>' "$name.log" || fail "$name: no chain"
done

# --- Files: the same bits for the same seed, others for another; threads change nothing.
mix='parity:20,addition:8-12*2,words_zh'
"$wels" tasks "$mix" --count 5000 --out a.jsonl 2>/dev/null || fail "writing"
OMP_NUM_THREADS=1 "$wels" tasks "$mix" --count 5000 --out b.jsonl 2>/dev/null
"$wels" tasks "$mix" --count 5000 --seed 2 --out c.jsonl 2>/dev/null
"$wels" tasks "$mix" --count 500 --held-out --out held.jsonl 2>/dev/null
cmp a.jsonl b.jsonl || fail "the number of threads changes the examples"
! cmp -s a.jsonl c.jsonl || fail "the seed changes nothing"
lines a.jsonl 5000
python3 - <<'PY' || fail "what was written"
import json
def questions(path): return [json.loads(l) for l in open(path)]
train, held = questions("a.jsonl"), questions("held.jsonl")
assert not {e["question"] for e in train} & {e["question"] for e in held}
share = {t: sum(e["task"] == t for e in train) / len(train) for t in ("parity", "addition", "words_zh")}
assert abs(share["addition"] - 0.5) < 0.04 and abs(share["parity"] - 0.25) < 0.04, share
assert {e["level"] for e in train if e["task"] == "addition"} == set(range(8, 13))
for e in train:
    assert e["metadata"] == {"level": e["level"]}, e
    if e["task"] == "addition": assert eval(e["question"]) == int(e["answer"])
    if e["task"] == "parity": assert str(e["question"].count("1") % 2) == e["answer"] == e["chain"][-1]
PY
# What was written is a task itself, and prints as before.
"$wels" tasks a.jsonl --count 20 --format jsonl > again.log || fail "a written file as a task"
lines again.log 20

# --- Messages: the chain in the share that was asked for; examples do not depend on it.
"$wels" tasks parity:20 --count 2000 --format messages --p-cot 0.2 --out m.jsonl 2>/dev/null || fail "messages"
"$wels" tasks parity:20 --count 2000 --format messages --p-cot 1 > all.jsonl
"$wels" tasks parity:20 --count 2000 --format messages --p-cot 0 > none.jsonl
python3 - <<'PY' || fail "the messages"
import json, re
def load(path): return [json.loads(l)["messages"] for l in open(path)]
m, every, none = load("m.jsonl"), load("all.jsonl"), load("none.jsonl")
chains = 0
for a, b, c in zip(m, every, none):
    assert [x["role"] for x in a] == ["user", "assistant"] and a[0] == b[0] == c[0]
    assert re.fullmatch(r"<think>[01]{20}</think>[01]", b[1]["content"])
    assert re.fullmatch(r"<think></think>[01]", c[1]["content"])
    assert a[1] in (b[1], c[1])
    chains += a[1] == b[1]
assert 320 < chains < 480, chains
PY
# A search is given up at the share of its dead ends that was asked for: at 1, at the first.
"$wels" tasks countdown:3 --count 200 --format messages > found.jsonl
"$wels" tasks countdown:3 --count 200 --format messages --p-stop 1 > stopped.jsonl
python3 - <<'PY' || fail "searches that are given up"
import json
for a, b in zip(open("found.jsonl"), open("stopped.jsonl")):
    a, b = (json.loads(line)["messages"][1]["content"] for line in (a, b))
    before, dead_end, _ = a.partition(" back")
    assert b == (before + dead_end + " stop</think>none" if dead_end else a), (a, b)
PY

# --- Bad input.
expect 'there is no task "paritty"; use one of parity, ' paritty
expect 'parity has levels 1 to 64 \(bits\), not 65' parity:65
expect '"x" is no level' parity:x
expect 'a part is empty' 'parity,,sums'
expect 'the share "0"' 'parity*0'
expect 'missing.jsonl: ' missing.jsonl
expect 'parity: none of 1000 examples of level 1 to 1 .*use a higher level' parity:1 --held-out --seed 3
expect '--p-cot: only messages' parity --p-cot 0.5
expect '--p-stop: only messages' parity --p-stop 0.5
expect 'nowhere' parity --out nowhere/a.jsonl
printf '{"question": "a", "answer": "b"}\n{"question": "c"}\n' > bad.jsonl
expect 'bad.jsonl:2: the object has no "answer"; write' bad.jsonl
printf '{"question": "a", "answer": "b"}\n{"question": broken\n' > bad.jsonl
expect 'bad.jsonl:2: not valid JSON' bad.jsonl
printf '{"question": "a", "answer": "b", "checker": "magic"}\n' > bad.jsonl
expect 'bad.jsonl:1: there is no checker "magic"; use one of exact' bad.jsonl
printf '{"question": "a", "answer": "b"}\n' > good.jsonl
expect 'good.jsonl@magic: there is no checker' good.jsonl@magic
expect 'good.jsonl:1: the answer "b" is no number' good.jsonl@number
expect 'good.jsonl:1: "tests" is neither' good.jsonl@code
expect 'good.jsonl:1: "choices" is no list' good.jsonl@choice
: > empty.jsonl
expect 'empty.jsonl: holds no question' empty.jsonl
printf '{"question": "a", "tests": "assert True"}\n' > code.jsonl
mkdir nothing
code=0; PATH=$scratch/nothing "$wels" tasks code.jsonl >out.log 2>err.log || code=$?
[ "$code" -eq 2 ] && grep -q '^error: sandbox: .*bubblewrap is missing.*; install the package bubblewrap$' err.log ||
  { cat err.log; fail "code tests without bubblewrap end with $code"; }
for flags in '--count 0' '--count x' '--p-cot 2' '--format yaml' '--seed x'; do
  code=0; "$wels" tasks parity $flags >out.log 2>err.log || code=$?
  [ "$code" -eq 2 ] || fail "$flags ends with $code"
done

# --- Ctrl-C leaves no part of a file.
"$wels" tasks addition --count 100000000 --out big.jsonl >/dev/null 2>&1 & first=$!
for _ in $(seq 1200); do writing "$first" "$PWD/big.jsonl" && break; sleep 0.05; done
kill -INT "$first"
code=0; wait "$first" || code=$?
[ "$code" -eq 130 ] || fail "Ctrl-C ends with $code"
[ -z "$(ls | grep big.jsonl)" ] || fail "Ctrl-C leaves a part of the file"
echo "tasks: all as expected"
