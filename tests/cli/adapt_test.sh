#!/usr/bin/env bash
# wels adapt: documents, replay of a corpus and of the model's own text, examples and a task; whole and by adapters; killed in every stage
# and resumed to the same bits; bad input is named before anything runs.
. "$(dirname "$0")/common.sh"
cd "$scratch"
"$wels" sft --preset nano --mtp 0 --task parity:2-3 --p-cot 0.5 --steps 60 --batch 32 --lr 3e-3 --sample-every 0 --out base >/dev/null 2>&1 ||
  fail "the base"
mkdir docs general
for i in $(seq 30); do
  printf 'Treaty %d\n\nParty %d delivers %d barrels of herring to party %d before the frost.\n' "$i" "$i" "$((i * 7))" "$((i + 1))" > docs/$i.md
  printf 'The cat of house %d sat on mat %d and looked at %d birds.\n' "$i" "$((i * 3))" "$((i + 2))" > general/$i.txt
done
"$wels" tasks parity:2-3 --count 60 --format messages --out examples.jsonl 2>/dev/null
adapt=(adapt base docs --replay general --examples examples.jsonl --task parity:2-3 --seq 96 --epochs 2 --batch 4 --sft-epochs 1 --rl-steps 3
  --max-tokens 16 --items 16 --set pretrain.save_every=3 --set pretrain.lr=0.002 --set sft.batch=8 --set sft.save_every=2 --set rl.groups=4
  --set rl.samples=4 --set rl.save_every=1)
digest() { (cd "$1" && find . \( -name '*.safetensors' -o -name '*.jsonl' \) ! -name metrics.jsonl | sort | xargs sha256sum | sha256sum); }
bits() { python3 -c "import json,sys; s={r['name']:r for r in json.load(open(sys.argv[1]))['stages']}; print(s[sys.argv[2]]['evaluation']['texts'][sys.argv[3]]['bits_per_byte'])" "$@"; }

"$wels" "${adapt[@]}" --out whole > out.txt 2>err.txt || { cat err.txt; fail "wels adapt"; }
want=$(digest whole)
for name in documents replay before pretrain sft rl all; do grep -q "^| $name " out.txt || { cat out.txt; fail "no line of $name in the table"; }; done
for column in 'domain: bits per byte' 'general: bits per byte' 'examples: nats / right tokens' 'parity: greedy'; do
  grep -q "$column" whole/report_card.md || { cat whole/report_card.md; fail "no column $column"; }
done
if command -v python3 >/dev/null; then
  before=$(bits whole/report_card.json before domain) after=$(bits whole/report_card.json pretrain domain)
  awk "BEGIN { exit !($after < 0.8 * $before) }" || fail "the domain was not learned: $before bits per byte, then $after"
fi
# What is held out is not learned, and the replay's share is a quarter of the text.
cut -c1-60 whole/01-documents/held_out.jsonl | while read -r line; do
  ! grep -qF -- "$line" whole/01-documents/answers/texts.jsonl || fail "a held-out document is learned too"
done
"$wels" chat whole/06-rl "parity 01" -n 4 </dev/null >/dev/null 2>err.txt || { cat err.txt; fail "chat with the result"; }

# kill -9 as soon as each stage has something to lose.
killed() {
  local path=$1 pid
  "$wels" "${adapt[@]}" --out killed --threads "$2" >/dev/null 2>&1 & pid=$!
  for _ in $(seq 2400); do compgen -G "killed/$path" >/dev/null && break; kill -0 "$pid" 2>/dev/null || break; sleep 0.02; done
  kill -9 "$pid" 2>/dev/null || fail "it was over before it could be killed at $path"
  wait "$pid" 2>/dev/null || true
}
killed '01-documents/started.json' 2
killed '04-pretrain/checkpoints/step-00000003' 1
killed '05-sft/checkpoints/step-00000002' 2
killed '06-rl/checkpoints/step-00000001' 1
"$wels" "${adapt[@]}" --out killed > /dev/null 2>err.txt || { cat err.txt; fail "resumed after kill -9"; }
[ "$(digest killed)" = "$want" ] || fail "killed and resumed: other bits"

# The model's own text as replay, in two parts; adapters, joined with the model after each stage.
own=(adapt base docs --seq 64 --steps 4 --batch 4 --lora 4 --examples examples.jsonl --sft-epochs 1)
"$wels" "${own[@]}" --out own > out.txt 2>err.txt || { cat err.txt; fail "adapters and own samples"; }
grep -q 'pretrain-merged' out.txt || fail "no merged model in the table"
[ -f own/05-pretrain-merged/model/config.json ] || fail "no merged model"
[ -s own/02-replay/answers/texts.jsonl ] || fail "no samples of the model's own"
"$wels" "${own[@]}" --out own2 >/dev/null 2>&1 & pid=$!
for _ in $(seq 2400); do compgen -G 'own2/02-replay/blocks/train-000000.jsonl' >/dev/null && break; sleep 0.02; done
kill -9 "$pid" 2>/dev/null || true
wait "$pid" 2>/dev/null || true
"$wels" "${own[@]}" --out own2 >/dev/null 2>err.txt || { cat err.txt; fail "own samples, resumed"; }
cmp own/02-replay/answers/texts.jsonl own2/02-replay/answers/texts.jsonl || fail "own samples in two parts differ"

# From a quantised file, by adapters to the end: each stage goes on from the last one's model, joined with its adapters.
"$wels" quantize base -o base.gguf --type q8_0 >/dev/null 2>&1 || fail "quantize"
file=(adapt base.gguf docs --replay general --seq 64 --steps 4 --batch 4 --lora 4 --examples examples.jsonl --sft-epochs 1 --task parity:2-3
  --rl-steps 3 --max-tokens 16 --items 16 --set rl.groups=4 --set rl.samples=4 --set rl.save_every=1)
"$wels" "${file[@]}" --out file > out.txt 2>err.txt || { cat err.txt; fail "wels adapt of a file"; }
for name in before pretrain-merged sft-merged rl rl-merged; do grep -q "^| $name " out.txt || { cat out.txt; fail "no line of $name in the table"; }; done
[ -s file/08-rl/checkpoints/step-00000003/adapter_model.safetensors ] || fail "rl trained no adapters"
"$wels" chat file/09-rl-merged/model "parity 01" -n 4 </dev/null >/dev/null 2>err.txt || { cat err.txt; fail "chat with the result"; }
"$wels" "${file[@]}" --out file2 >/dev/null 2>&1 & pid=$!
for _ in $(seq 2400); do compgen -G 'file2/08-rl/checkpoints/step-00000001' >/dev/null && break; sleep 0.02; done
kill -9 "$pid" 2>/dev/null || true
wait "$pid" 2>/dev/null || true
"$wels" "${file[@]}" --out file2 >/dev/null 2>err.txt || { cat err.txt; fail "from a file, resumed"; }
[ "$(digest file2)" = "$(digest file)" ] || fail "from a file, killed and resumed: other bits"

# Bad input: exit code 2 and one line on stderr, nothing left behind.
expect() {
  local pattern=$1 code=0
  shift
  "$@" >stdout.log 2>stderr.log || code=$?
  [ "$code" -eq 2 ] || { cat stderr.log; fail "exit code $code instead of 2: $*"; }
  grep -E '^error: |^[^ ]*: ' stderr.log | grep -qE -- "$pattern" || { cat stderr.log; fail "no error line with '$pattern': $*"; }
}
mkdir empty blank small
: > blank/a.txt
echo 'One line.' > small/a.txt
echo '{"question": "2 + 2?"}' > half.jsonl
echo '{"text": "no answer here"}' > text.jsonl
echo '{"question": "2 + 2?", "answer": "4"}' > one.jsonl
expect 'missing: does not exist; name a model' "$wels" adapt missing docs --out a
expect 'base.gguf: is a GGUF file.*--lora 16' "$wels" adapt base.gguf docs --out a
expect 'does not begin with GGUF' "$wels" adapt one.jsonl docs --lora 4 --out a
expect 'missing: does not exist; name a file or folder of documents' "$wels" adapt base missing --out a
expect 'missing: does not exist; name a file or folder of general text' "$wels" adapt base docs --replay missing --out a
expect 'missing.jsonl: does not exist; name a file of examples' "$wels" adapt base docs --examples missing.jsonl --out a
expect 'half.jsonl:1.*"answer"' "$wels" adapt base docs --examples half.jsonl --out a
expect 'text.jsonl:1: is a text, not an example' "$wels" adapt base docs --examples text.jsonl --out a
expect 'nonsense' "$wels" adapt base docs --task nonsense:3 --out a
expect 'replay-share: 0 repeats nothing' "$wels" adapt base docs --replay general --replay-share 0 --out a
expect 'replay-share' "$wels" adapt base docs --replay-share 0.95 --out a
expect '"x" is no STAGE.SETTING=VALUE' "$wels" adapt base docs --set x --out a
expect 'there is no stage "x"; use documents, replay, before, pretrain' "$wels" adapt base docs --set x.y=1 --out a
expect 'pretrain.*there is no setting "nonsense"' "$wels" adapt base docs --set pretrain.nonsense=1 --out a
[ ! -e a ] || fail "bad flags have left something"
expect 'empty' "$wels" adapt base empty --out a
expect 'blank' "$wels" adapt base blank --out b
expect 'small: .*too little to hold a part of it out' "$wels" adapt base small --out c
expect 'seq: 100000 is not between' "$wels" adapt base docs --seq 100000 --out d
expect 'none of its questions is held out' "$wels" adapt base docs --examples one.jsonl --seq 64 --steps 1 --out e
cp -r base/checkpoints/step-00000060 bare && rm bare/tokenizer.json
expect 'bare: has no tokenizer.json' "$wels" adapt bare docs --out f
expect 'was run with seq 96, not 64; --from documents runs it again' "$wels" "${adapt[@]/#96/64}" --out whole
echo "adapt: learns a domain, resumes to the same bits, refuses bad input"
