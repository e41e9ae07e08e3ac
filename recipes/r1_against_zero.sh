#!/usr/bin/env bash
# R1's stages against R1-Zero and against SFT alone, in accuracy and readability (the question of the R1 paper's table 3, in small). The
# base has read chains of thought whose steps are in English or in Chinese, by a coin, and gives four answers of five at once. RL with
# the outcome as its only reward has no reason to choose a language; the cold start and the reward for one language have. "SFT alone" learns the
# generator's own English chains.   recipes/r1_against_zero.sh [FLAGS OF wels r1]     one report card a seed: WELS_SEEDS="1 2 3"
set -euo pipefail
cd "$(dirname "$0")/.."
wels=${WELS:-build/release/wels}
out=out/r1_against_zero  # recipes/r1_against_zero.json names the base there
mkdir -p "$out"
task=words_en:1-2
"$wels" tasks $task --count 20000 --seed 7 --out "$out/plain.jsonl"
"$wels" tasks $task --held-out --count 400 --seed 8 --out "$out/held.jsonl"
awk 'BEGIN {srand(1); n = split("Start with |Add |Take away |Double |Half |Share ", en, "|"); split("开始有|加|减|翻倍|一半|平分", zh, "|")}
{
  at = index($0, "\"chain\":\""); rest = substr($0, at); line = substr($0, 1, at - 1)
  while (rest != "") {
    used = 1; word = substr(rest, 1, 1)
    for (i = 1; i <= n; i++)
      if (index(rest, en[i]) == 1) {used = length(en[i]); word = rand() < 0.5 ? zh[i] : en[i]}
    line = line word; rest = substr(rest, used + 1)
  }
  print line
}' "$out/plain.jsonl" "$out/held.jsonl" >"$out/mixed.jsonl"
learn() { "$wels" sft "$@" --task "$out/mixed.jsonl" --batch 64 --sample-every 0; }
learn --preset nano --mtp 0 --p-cot 1 --steps 900 --lr 3e-3 --seed 1 --out "$out/chains"
learn "$out/chains" --p-cot 0.2 --steps 100 --lr 5e-4 --seed 2 --out "$out/base"
for seed in ${WELS_SEEDS:-1 2 3}; do
  sed "s/\"name\": \"R1 against/\"seed\": $seed, &/" recipes/r1_against_zero.json >"$out/recipe-$seed.json"
  "$wels" r1 "$out/recipe-$seed.json" --out "$out/$seed" "$@"
done
