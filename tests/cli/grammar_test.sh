#!/usr/bin/env bash
# wels generate --grammar, --json-schema and --json: whatever the model would rather say, the answer fits; what cannot be held to is
# refused in one line.
. "$(dirname "$0")/common.sh"
cd "$scratch"
seq 1 3000 | sed 's/$/ is a number of no importance/' > text.txt
"$wels" pretrain text.txt --out run --preset nano --seq 64 --batch-tokens 512 --micro-batch 512 --vocab 400 --steps 2 \
  --sample-every 0 >/dev/null 2>&1 || fail "pretrain"

# answers PATTERN FLAGS...: three seeds' answers match as a whole, and are not all the model says without the grammar.
answers() {
  local pattern=$1
  shift
  for seed in 1 2 3; do
    "$wels" generate run "1 is" -q -n 120 --temperature 1 --top-p 1 --seed "$seed" "$@" >out.log || fail "generate $*"
    grep -qxE -- "$pattern" out.log || { cat out.log; fail "$*: does not match $pattern"; }
    [ "$(wc -l < out.log)" -eq 1 ] || { cat out.log; fail "$*: more than one line"; }
  done
}
echo 'root ::= "yes" | "no" | [0-9]{3} "中"' > answer.gbnf
answers 'yes|no|[0-9]{3}中' --grammar answer.gbnf
answers 'yes|no|[0-9]{3}中' --grammar answer.gbnf --speculate ngram
echo '{"type": "object", "properties": {"n": {"type": "integer", "minimum": 10, "maximum": 29}, "ok": {"type": "boolean"}},
       "required": ["n", "ok"], "additionalProperties": false}' > schema.json
"$wels" generate run "1 is" -q -n 200 --temperature 1 --json-schema schema.json >out.log
tr -d ' \n\t' < out.log | grep -qxE '\{"n":[12][0-9],"ok":(true|false)\}' || { cat out.log; fail "does not fit the schema"; }
"$wels" generate run "1 is" -q -n 30 --temperature 1 --json-schema '{"enum": ["red", "green"]}' >out.log || fail "a schema on the command line"
grep -qxE '"(red|green)"' out.log || { cat out.log; fail "does not fit the schema on the command line"; }
"$wels" generate run "1 is" -q -n 30 --temperature 1 --json >out.log
head -c 1 out.log | grep -q '{' || { cat out.log; fail "--json does not begin an object"; }

# An answer that the limit cuts says so; one that is complete does not.
"$wels" generate run "1 is" -q -n 3 --temperature 1 --json-schema schema.json >out.log 2>err.log || fail "a cut answer"
grep -q 'warning: the answer was cut after 3 tokens, before its format was complete; raise -n' err.log || { cat err.log; fail "no word of the cut"; }
echo 'root ::= "a"' > one.gbnf
"$wels" generate run "1 is" -q -n 1 --grammar one.gbnf >out.log 2>err.log
[ ! -s err.log ] || { cat err.log; fail "a complete answer is called cut"; }

# chat: as flags and as a command, behind a thought that stays free.
"$wels" chat run "1 is" -n 120 --temperature 1 --grammar answer.gbnf 2>/dev/null >out.log </dev/null || fail "chat --grammar"
grep -qxE 'yes|no|[0-9]{3}中' out.log || { cat out.log; fail "chat --grammar does not hold"; }
printf '/set format schema schema.json\n1 is\n/set noformat\n' | "$wels" chat run -n 200 --temperature 1 2>/dev/null >out.log || fail "/set format"
tr -d ' \n\t' < out.log | grep -qE '\{"n":[12][0-9],"ok":(true|false)\}' || { cat out.log; fail "/set format schema does not hold"; }
"$wels" chat run "1 is" -n 60 --think-budget 4 --template deepseek-r1-distill-llama-8b --temperature 1 --grammar answer.gbnf 2>err.log >out.log </dev/null ||
  { cat err.log; fail "chat --grammar behind a thought"; }
tail -n 1 out.log | grep -qE '(yes|no|[0-9]{3}中)$' || { cat out.log; fail "the grammar does not hold behind the thought"; }

refused() {
  if "$wels" generate run "1 is" -q -n 5 "$@" >out.log 2>err.log; then fail "$* was not refused"; fi
  [ "$(wc -l < err.log)" -eq 1 ] || { cat err.log; fail "$*: not one line"; }
  grep -q "$pattern" err.log || { cat err.log; fail "$*: no '$pattern'"; }
}
echo 'root ::= root "a" | "b"' > left.gbnf
echo '{"type": "string", "multipleOf": 3}' > odd.json
pattern="begins with itself" refused --grammar left.gbnf
pattern="multipleOf" refused --json-schema odd.json
pattern="missing.gbnf" refused --grammar missing.gbnf
pattern="grammar: needs a file" refused --grammar ''
pattern="json-schema: needs a file" refused --json-schema ''
pattern="json schema" refused --json-schema '{"type": "thing"}'
pattern="ignore-eos: an answer that is held to a format has to end" refused --json --ignore-eos
echo "passed"
