#!/usr/bin/env bash
# A short run on tinyshakespeare must learn: below the stated bits per byte, through the whole program (tokenizer, shards, training,
# checkpoint, report, generation, evaluation, export).
. "$(dirname "$0")/common.sh"
need_data tinyshakespeare.txt
bound=2.95  # bits per byte on nanoGPT's validation split after 300 steps of 2,048 characters; measured: see docs/log.md
"$wels" pretrain "$data/tinyshakespeare.txt" --out "$scratch/run" --preset nano --tokenizer char --split tail --seq 128 \
  --batch-tokens 2048 --micro-batch 2048 --steps 300 --lr 3e-3 --eval-every 100 --eval-sequences 0 --save-every 300 --sample-every 150 \
  2>"$scratch/log" | tee "$scratch/out" || { cat "$scratch/log"; fail "training"; }
grep -q '^  sample at step 300:$' "$scratch/log" || { cat "$scratch/log"; fail "no sample on the terminal"; }
for row in '"shape", *"nano"' '"warm-up", *"10 steps"' '"weight decay", *"0.1"' '"tokenizer", *"char"' '"split", *"tail"' \
  '"corpus", *".*tinyshakespeare.txt"' '"as typed", *".*pretrain .*--steps 300'; do
  tr -d '\n' < "$scratch/run/run.json" | sed 's/, *"/, "/g' | grep -qE "$row" || { cat "$scratch/run/run.json"; fail "run.json lacks $row"; }
done
bits=$(grep -oE '[0-9.]+ bits per byte' "$scratch/out" | cut -d' ' -f1)
awk -v b="$bits" -v most="$bound" 'BEGIN { exit !(b > 0 && b < most) }' || fail "$bits bits per byte, at most $bound expected"
for f in report.html metrics.jsonl events.out.tfevents.wels run.json tokenizer.json; do
  [ -s "$scratch/run/$f" ] || fail "no $f"
done
text=$("$wels" generate "$scratch/run" "ROMEO:" -n 200 --seed 3 2>/dev/null)
[ "$(printf '%s' "$text" | wc -m)" -ge 150 ] || fail "wrote too little: $text"
again=$("$wels" generate "$scratch/run" "ROMEO:" -n 200 --seed 3 2>/dev/null)
[ "$text" = "$again" ] || fail "the same seed wrote two texts"
"$wels" eval "$scratch/run" "$data/tinyshakespeare.txt" --seq 128 --json >"$scratch/out" && grep -q bits_per_byte "$scratch/out" || fail "eval"
"$wels" info "$scratch/run" >"$scratch/out" && grep -q "experts: 2 of 8 + 1 shared" "$scratch/out" || fail "info"
echo "learned: $bits bits per byte"
