#!/usr/bin/env bash
# wels bench: the JSON that scripts read has its fields, figures that can be, and the bytes that the shape has; bad flags are
# refused. Speeds themselves are not tested.
. "$(dirname "$0")/common.sh"
cd "$scratch"

# field NAME: its value in out.log.
field() { grep -oE "\"$1\":[^,}]+" out.log | cut -d: -f2; }
positive() { awk -v x="$(field "$1")" 'BEGIN { exit !(x > 0) }' || { cat out.log; fail "$1 is not above 0"; }; }
refused() {
  if "$wels" bench "$@" >out.log 2>err.log; then fail "bench $* was not refused"; fi
  [ "$(wc -l < err.log)" -le 2 ] || { cat err.log; fail "bench $*: more than one error"; }
}

"$wels" bench train --preset nano --seq 64 --batch-tokens 128 --micro-batch 128 --seconds 0.1 --json >out.log
for name in tokens_per_s flops_per_token gflops peak_gflops_bf16 fraction_of_peak params_total params_active peak_rss_bytes; do
  positive "$name"
done

declare -A bytes
for type in f32 bf16 fp8 q8_0; do
  "$wels" bench infer --shape tiny --layers 2 --type "$type" --prompt 9 --gen 2 --depth 70 --streams 2 --json >out.log
  [ "$(wc -l < out.log)" -eq 1 ] || fail "$type: not one object"
  for name in prefill_tokens_per_s decode_tokens_per_s bytes_read_per_token read_bandwidth decode_fraction_of_bandwidth \
              peak_rss_bytes; do
    positive "$name"
  done
  bytes[$type]=$(field bytes_read_per_token)
done
[ "${bytes[f32]}" -gt $((${bytes[bf16]} * 18 / 10)) ] || fail "f32 reads ${bytes[f32]} bytes a token, bf16 ${bytes[bf16]}"
[ "${bytes[bf16]}" -gt $((${bytes[q8_0]} * 16 / 10)) ] || fail "bf16 reads ${bytes[bf16]} bytes a token, q8_0 ${bytes[q8_0]}"
"$wels" bench infer --shape tiny --layers 2 --type q8_0 --kv-cache q8 --prompt 0 --gen 2 --depth 700 --expert-memory 0.01 --json >out.log
[ "$(field kv_cache)" = '"q8_0"' ] || { cat out.log; fail "the cache is not in 8 bits"; }
for name in decode_tokens_per_s expert_calls expert_calls_in_memory; do positive $name; done
"$wels" bench infer --shape tiny --layers 1 --prompt 4,8 --gen 1 --streams 1,3 --csv >out.log
[ "$(wc -l < out.log)" -eq 5 ] || { cat out.log; fail "two prompts and two numbers of streams: not 4 rows and a head"; }
"$wels" bench infer --shape tiny --layers 1 --prompt 4 --gen 1 --threads 2,1 --json >out.log
[ "$(grep -o '"threads":[0-9]*' out.log | tr '\n' ' ')" = '"threads":2 "threads":1 ' ] || { cat out.log; fail "two numbers of threads: not a run each"; }

"$wels" bench infer --shape tiny --layers 1 --prompt 4 --gen 1 --depth 1,2 --threads 2,1 >out.log
[ "$(grep -oE '[0-9]+ threads: +([0-9]+ streams at depth +[0-9]+|prompt +[0-9]+):' out.log | sort -u | wc -l)" -eq 6 ] ||
  { cat out.log; fail "the rows of a table are not told apart"; }

# What does not fit is refused before it is made, by what is free.
refused infer --shape deepseek-v3 --type bf16
grep -q 'memory: random weights and what goes with them need .* are free; use fewer --layers' err.log || { cat err.log; fail "no plan"; }
refused infer --shape tiny --layers 2 --type q8_0 --prompt 4 --gen 2 --depth 1000000 --streams 100000
grep -q 'memory: random weights .* KV cache .* are free' err.log || { cat err.log; fail "no plan of the cache"; }

# The random weights as a file: the same bytes are read of them.
"$wels" bench infer --shape tiny --layers 2 --type q8_0 --gguf tiny.gguf >out.log && [ ! -s out.log ] || fail "--gguf measures"
refused infer --model tiny.gguf --prompt 4 --gen 2 --depth 100000 --streams 100000
grep -q 'memory: generating needs .* KV cache of .* are free' err.log || { cat err.log; fail "no plan of a file"; }
"$wels" info tiny.gguf >out.log && grep -q 'experts: 4 of 32 + 1 shared' out.log || fail "info of the file"
"$wels" bench infer --model tiny.gguf --prompt 9 --gen 2 --depth 70 --streams 2 --json >out.log
positive decode_tokens_per_s

refused infer
refused infer --gguf no.gguf
refused infer --shape tiny --type fp8 --gguf no.gguf
refused infer --shape tiny --gguf missing/no.gguf
refused infer --shape nope
refused infer --shape tiny --layers 100
refused infer --shape tiny --prompt 0 --gen 0
refused infer --shape tiny --json --csv
refused infer --model tiny.gguf --type q4_k
refused infer --model tiny.gguf --prompt 200000
refused infer --shape tiny --type q9
refused infer --shape tiny --model .
refused infer --model missing.gguf
refused train --preset nope
[ ! -e no.gguf ] || fail "a refused file is left"
echo "passed"
