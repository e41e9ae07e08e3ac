#!/usr/bin/env bash
# wels r1: all kinds of stages in one recipe, killed in every stage and resumed to the same bits; what has changed is refused or, with
# --from, run again with what depends on it; bad recipes are named by their place before anything runs.
. "$(dirname "$0")/common.sh"
cd "$scratch"
seq 1 400 | sed 's/$/ cats sat on the mat./' > general.txt
"$wels" tasks parity:4 --count 8 --format jsonl --held-out --out asked.jsonl 2>/dev/null
cat > recipe.json <<'JSON'
{
  "name": "tiny", "seed": 3,
  "evaluation": {"task": "parity:2-3,addition:1", "items": 16, "samples": 2, "max_tokens": 24, "texts": {"general": "general.txt"}},
  "stages": [
    {"name": "base", "kind": "base", "task": "parity:2-3,addition:1", "mtp": 0, "p_cot": 0.5, "steps": 60, "batch": 32, "save_every": 20,
     "sample_every": 0, "lr": 3e-3},
    {"name": "zero", "kind": "rl", "from": "base", "task": "parity:2-3", "groups": 4, "samples": 4, "steps": 3, "max_tokens": 24,
     "save_every": 1, "eval_every": 3, "eval_items": 8},
    {"name": "cold", "kind": "sample", "from": "zero", "task": "parity:2-3", "questions": 24, "tries": 4, "keep": 2, "block": 4,
     "max_tokens": 24, "readable": true},
    {"name": "general", "kind": "examples", "task": "addition:1", "count": 12},
    {"name": "tuned", "kind": "sft", "from": "base", "data": ["cold", "general"], "epochs": 1, "batch": 4, "save_every": 1,
     "sample_every": 0, "held_out": 0.1},
    {"name": "harder", "kind": "eval", "from": "tuned", "task": "asked.jsonl", "items": 8, "max_tokens": 24}
  ]
}
JSON
r1() { "$wels" r1 "$@"; }
digest() { (cd "$1" && find . \( -name '*.safetensors' -o -name '*.jsonl' \) ! -name metrics.jsonl | sort | xargs sha256sum | sha256sum); }

r1 recipe.json --out whole --threads 2 --price-per-hour 2 > out.txt 2>err.txt || { cat err.txt; fail "wels r1"; }
want=$(digest whole)
for name in base zero cold general tuned harder all; do grep -q "^| $name " out.txt || fail "no line of $name in the table"; done
grep -q 'parity: greedy / sampled / pass@2' out.txt || fail "no accuracies in the table"
grep -q 'general: bits per byte' out.txt || fail "no loss on general text in the table"
[ "$(grep -o '"bits_per_byte"' whole/report_card.json | wc -l)" -eq 3 ] || fail "not every model has its loss on general text"
grep -q '| money' whole/report_card.md || fail "no money on the card"
for key in trained_tokens sampled_tokens flops money pass_at_k long_share; do
  grep -q "\"$key\"" whole/report_card.json || fail "report_card.json lacks $key"
done
cat whole/03-cold/answers/block-*.jsonl >answers.jsonl && grep -q '"messages"' answers.jsonl || fail "no messages were sampled"

# Finished: the same card again, and nothing is computed.
cp out.txt first.txt
touch mark
r1 recipe.json --out whole --price-per-hour 2 > out.txt 2>/dev/null || fail "the same command again"
grep '^|' first.txt > a.txt; grep '^|' out.txt > b.txt
cmp -s a.txt b.txt || fail "the card differs the second time"
[ -z "$(find whole -name '*.safetensors' -newer mark)" ] || fail "a finished stage was written again"

# kill -9 as soon as each stage has something to lose, every time with another number of threads.
killed() {
  local path=$1 pid
  "$wels" r1 recipe.json --out killed --threads "$2" >/dev/null 2>&1 & pid=$!
  for _ in $(seq 2400); do compgen -G "killed/$path" >/dev/null && break; kill -0 "$pid" 2>/dev/null || break; sleep 0.02; done
  kill -9 "$pid" 2>/dev/null || fail "it was over before it could be killed at $path"
  wait "$pid" 2>/dev/null || true
}
killed '01-base/checkpoints/step-00000020' 2
killed '02-zero/checkpoints/step-00000001' 1
killed '03-cold/answers/block-000001.jsonl' 2
killed '05-tuned/checkpoints/step-00000002' 1
r1 recipe.json --out killed > /dev/null 2>err.txt || { cat err.txt; fail "resumed after kill -9"; }
[ "$(digest killed)" = "$want" ] || fail "killed and resumed: other bits"
"$wels" r1 recipe.json --out stopped >/dev/null 2>&1 & pid=$!
for _ in $(seq 2400); do [ -s stopped/01-base/metrics.jsonl ] && break; sleep 0.02; done
kill -INT "$pid"
code=0; wait "$pid" || code=$?
[ "$code" -eq 130 ] || fail "Ctrl-C ended with $code instead of 130"

# Bad input: exit code 2 and one line on stderr.
expect() {
  local pattern=$1 code=0
  shift
  "$@" >stdout.log 2>stderr.log || code=$?
  [ "$code" -eq 2 ] || { cat stderr.log; fail "exit code $code instead of 2: $*"; }
  [ "$(grep -c '^error: ' stderr.log)" -eq 1 ] || { cat stderr.log; fail "not one error line: $*"; }
  grep -E '^error: ' stderr.log | grep -qE -- "$pattern" || { cat stderr.log; fail "no error line with '$pattern': $*"; }
}
# changed SED PATTERN: the recipe with that change is refused.
changed() {
  sed -E "$1" recipe.json > bad.json
  cmp -s bad.json recipe.json && fail "the recipe has no $1"
  expect "$2" r1 bad.json --out "${3:-never}"
}
expect 'missing.json' r1 missing.json --out never
changed 's/"name": "tiny",/"name": "tiny"/' 'bad.json:'
changed 's/"seed": 3/"sead": 3/' 'bad.json: there is no field "sead"; use name, seed'
changed 's/"evaluation"/"evaluations"/' 'bad.json: has no "evaluation"'
changed 's/"items": 16/"items": "many"/' 'evaluation.items: is "many", not a whole number'
changed 's/"general.txt"/"missing.txt"/' 'evaluation.texts.general: "missing.txt" is neither'
changed 's/"texts": [{]"general": "general.txt"[}]/"texts": "general.txt"/' 'evaluation.texts: is "general.txt", not an object'
changed 's/"kind": "rl"/"kind": "ppo"/' 'stages\[1\] \(zero\).kind: there is no "ppo"; use base, rl, sft'
changed 's/"kind": "rl", //' 'stages\[1\] \(zero\): has no "kind"'
changed 's/"steps": 3/"stepps": 3/' 'stages\[1\] \(zero\): there is no setting "stepps"; use .*steps'
changed 's/"steps": 3/"steps": 3.5/' 'stages\[1\] \(zero\).steps: is 3.5, not a whole number'
changed 's/"steps": 3/"minutes": 3/' 'stages\[1\] \(zero\): there is no setting "minutes"'
changed 's/"samples": 4, "steps"/"samples": 1, "steps"/' 'stages\[1\] \(zero\).samples: one answer has no siblings'
changed 's/"parity:2-3", "questions"/"parity:2-3", "seed": -1, "questions"/' 'stages\[2\] \(cold\).seed: is -1, not 0 or more'
changed 's/"readable": true/"readable": 1/' 'stages\[2\] \(cold\).readable: is 1, not true or false'
changed 's/"tries": 4/"tries": 0/' 'stages\[2\] \(cold\).tries: 0 is out of range; use 1 to 1024'
changed 's/"task": "parity:2-3", "groups"/"task": "nonsense:2", "groups"/' 'stages\[1\] \(zero\).task: .*nonsense'
changed 's/"task": "parity:2-3", "groups"/"groups"/' 'stages\[1\] \(zero\): task is required'
changed 's/"from": "zero"/"from": "hero"/' 'stages\[2\] \(cold\).from: "hero" is neither an earlier stage nor a path'
changed 's/"from": "zero"/"from": 7/' 'stages\[2\] \(cold\).from: is 7, not a string'
changed 's/\["cold", "general"\]/["base"]/' 'stages\[4\] \(tuned\).data: "base" is a stage of kind base, which leaves no data'
changed 's/\["cold", "general"\]/"cold"/' 'stages\[4\] \(tuned\).data: is "cold", not a list'
changed 's/"name": "zero"/"name": "base"/' 'stages\[1\] \(base\): the name is taken'
changed 's/"name": "zero"/"name": "Zero\/1"/' 'names a folder'
[ ! -e never ] || fail "a bad recipe has left something"
expect '--from: there is no stage "x"; use base, zero' r1 recipe.json --out whole --from x

# What has changed since is refused; --from runs it again and what depends on it, nothing else.
changed 's/"tries": 4/"tries": 3/' '03-cold: was run with tries 4, not 3; --from cold runs it again' whole
[ "$(digest whole)" = "$want" ] || fail "a refused recipe has changed the folder"
expect '03-cold: was run with tries 4, not 3' r1 bad.json --out whole --from tuned
touch mark
r1 bad.json --out whole --from cold >/dev/null 2>err.txt || { cat err.txt; fail "--from cold"; }
[ -z "$(find whole/01-base whole/02-zero whole/04-general -newer mark -type f ! -name .lock)" ] || fail "--from ran an earlier stage again"
[ -n "$(find whole/05-tuned -newer mark -name done.json)" ] || fail "--from left what depends on the stage"
cp asked.jsonl kept.jsonl && sed -i '$d' asked.jsonl
expect '06-harder: was run on other questions of its task files' r1 bad.json --out whole
cp kept.jsonl asked.jsonl
cp whole/03-cold/done.json done.json
printf '{%s, "outcome": 5}' "$(grep -o '"made": "[0-9a-f]*"' done.json)" > whole/03-cold/done.json
expect '03-cold: is not what the stage left there; remove the folder' r1 bad.json --out whole
cp done.json whole/03-cold/done.json
echo '{"model": 5}' > whole/01-base/evaluation.json
r1 bad.json --out whole > out.txt 2>err.txt || { cat err.txt; fail "a damaged evaluation"; }
grep -q '01-base/evaluation.json: holds no evaluation; the model is evaluated again' err.txt || { cat err.txt; fail "nothing said of a damaged evaluation"; }
grep -q '"bits_per_byte"' whole/01-base/evaluation.json || fail "the damaged evaluation was not made again"
expect 'holds stages that this recipe does not have: 01-base' "$wels" adapt whole/05-tuned general.txt --out whole
printf x >> whole/03-cold/answers/block-000000.jsonl
expect '03-cold: is not what the stage left there; remove the folder' r1 bad.json --out whole
echo "r1: all kinds of stages, resumes to the same bits, refuses bad recipes and changed ones"
