#!/usr/bin/env bash
# wels quantize: smaller files that say nearly the same, and one clear line where that cannot be.
. "$(dirname "$0")/common.sh"
cd "$scratch"
mounted=()
trap 'for m in "${mounted[@]}"; do umount "$m"; done; rm -rf "$scratch"' EXIT
seq 1 60000 | sed 's/$/ is a number of no importance/' > text.txt
"$wels" pretrain text.txt --out run --preset nano --seq 64 --batch-tokens 512 --micro-batch 512 --vocab 400 --steps 30 \
  --sample-every 0 >/dev/null 2>log || { cat log; fail "training"; }
checkpoint=$(ls -d run/checkpoints/step-*)
head -100 text.txt > few.txt
perplexity() { "$wels" eval "$1" few.txt --json 2>/dev/null | sed 's/.*"perplexity":\([0-9.]*\).*/\1/'; }
size() { stat -c %s "$1"; }
# near A B FACTOR: A is at most B times FACTOR.
near() { awk -v a="$1" -v b="$2" -v f="$3" 'BEGIN { exit !(a > 0 && a <= b * f) }'; }

# --- Every type is a model; fewer bits, fewer bytes.
original=$(perplexity run)
for type in q8_0 q6_k q5_k q5_1 q5_0 q4_k q4_1 q4_0 iq4_nl iq4_xs mxfp4 q3_k q2_k bf16 f16 f32; do
  "$wels" quantize run -o $type.gguf --type $type >stdout.log 2>stderr.log || { cat stderr.log; fail "$type"; }
  grep -qE '^all +[0-9]+ .* %' stdout.log || { cat stdout.log; fail "no summary of $type"; }
  near "$(perplexity $type.gguf)" "$original" 1.1 || fail "perplexity of $type: $(perplexity $type.gguf), of the original $original"
done
[ "$(size q2_k.gguf)" -lt "$(size q4_k.gguf)" ] && [ "$(size q4_k.gguf)" -lt "$(size q8_0.gguf)" ] || fail "sizes"
"$wels" quantize run -o q4_k.gguf 2>stderr.log >/dev/null || fail "the default type"
grep -q 'q5_0 in place of q4_k where rows are no multiple of 256: ' stderr.log || { cat stderr.log; fail "no note of other types"; }
"$wels" info q4_k.gguf >stdout.log && grep -q 'experts: 2 of 8 + 1 shared' stdout.log || fail "info"
[ "$(perplexity f32.gguf)" = "$original" ] || fail "f32 is not the original"
"$wels" export run --gguf again.gguf --type q4_k >/dev/null 2>&1 && cmp -s again.gguf q4_k.gguf || fail "export writes something else"
OMP_NUM_THREADS=1 "$wels" quantize run -o one.gguf >/dev/null 2>&1 && cmp -s one.gguf q4_k.gguf || fail "other bits with one thread"

# --- How far from the original: nothing for its own copy, more with fewer bits.
field() { sed "s/.*\"$1\":\([-0-9.e]*\).*/\1/" kl.json; }
compare() { "$wels" eval --kl "$1" few.txt --reference run --json >kl.json 2>stderr.log || { cat stderr.log; fail "kl of $1"; }; }
compare f32.gguf
[ "$(field kl)" = 0.0 ] && [ "$(field kl_max)" = 0.0 ] && [ "$(field same_top)" = 1.0 ] && [ "$(field perplexity_ratio)" = 1.0 ] ||
  { cat kl.json; fail "f32 is not the original"; }
compare q8_0.gguf; q8=$(field kl)
near "$q8" 1 0.05 || { cat kl.json; fail "kl of q8_0"; }
[ "$(field tokens)" -gt 100 ] && near "$(field perplexity)" "$(perplexity q8_0.gguf)" 1.01 &&
  near "$(perplexity q8_0.gguf)" "$(field perplexity)" 1.01 || { cat kl.json; fail "not the perplexity of q8_0"; }
compare q2_k.gguf
near "$q8" "$(field kl)" 0.2 || { cat kl.json; fail "q2_k is not further away than q8_0, $q8"; }
"$wels" eval q2_k.gguf few.txt --reference run >stdout.log 2>/dev/null || fail "a table"
grep -qE '^  mean +[0-9.]+ ± [0-9.]+$' stdout.log && grep -qE '^same likeliest token +[0-9.]+ ± [0-9.]+ %$' stdout.log || { cat stdout.log; fail "table"; }
"$wels" eval q2_k.gguf few.txt --reference run --perplexity --json >kl.json 2>/dev/null || fail "--perplexity"
grep -q perplexity_ratio kl.json && ! grep -q '"kl"' kl.json || { cat kl.json; fail "--perplexity says more or less"; }

# --- Single tensors, calibration, MTP.
"$wels" quantize run -o mix.gguf --type q4_0 --tensor 'blk.*.ffn_*_exps.weight=q8_0' --tensor 'blk.3.*=f16' >/dev/null 2>&1 || fail "--tensor"
"$wels" info mix.gguf --tensors > tensors.log 2>/dev/null || "$wels" info mix.gguf > tensors.log
"$wels" quantize run -o calibrated.gguf --calibration text.txt --calibration-tokens 3000 >stdout.log 2>stderr.log || { cat stderr.log; fail "calibration"; }
grep -q 'calibration: 3000 tokens, perplexity' stderr.log || { cat stderr.log; fail "3000 tokens were asked for"; }
grep -q weighted stdout.log || fail "no weighted error"
cmp -s calibrated.gguf q4_k.gguf && fail "calibration changes nothing"
near "$(perplexity calibrated.gguf)" "$original" 1.05 || fail "perplexity with calibration"
"$wels" quantize run -o mtp.gguf --mtp --calibration few.txt >/dev/null 2>stderr.log || { cat stderr.log; fail "--mtp"; }
[ "$(size mtp.gguf)" -gt "$(size calibrated.gguf)" ] || fail "--mtp adds nothing"
! grep -q 'left out: ' stderr.log || fail "--mtp says that modules are left out"
"$wels" quantize run -o named.gguf --type Q4_K_M >/dev/null 2>stderr.log || { cat stderr.log; fail "--type Q4_K_M"; }
cmp -s named.gguf q4_k.gguf || fail "Q4_K_M is not q4_k"
grep -q 'left out: 1 MTP module(s)' stderr.log || { cat stderr.log; fail "no word of the MTP module that is left out"; }

# --- From a GGUF file: the same as from the folder, and what is quantised stays as it is or is warned of.
"$wels" quantize f32.gguf -o from_file.gguf --type q4_k >/dev/null 2>&1 || fail "from a file"
[ "$(perplexity from_file.gguf)" = "$(perplexity q4_k.gguf)" ] || fail "another model from the file"
"$wels" quantize q8_0.gguf -o twice.gguf --type q4_0 >/dev/null 2>stderr.log || fail "from q8_0"
grep -q 'warning: q8_0.gguf: is quantised already, mostly q8_0, .* add up; better quantise the original' stderr.log || { cat stderr.log; fail "no warning"; }
"$wels" quantize q4_0.gguf -o decoded.gguf --type bf16 >/dev/null 2>stderr.log || fail "decoding"

# refuse PATTERN COMMAND...: exit code 2, one line on stderr that matches, no file.
refuse() {
  local pattern=$1 code=0
  shift
  rm -f no.gguf
  "$@" >stdout.log 2>stderr.log || code=$?
  [ "$code" -eq 2 ] || { cat stderr.log; fail "exit code $code instead of 2: $*"; }
  grep -E "^error: " stderr.log | grep -qE "$pattern" || { cat stderr.log; fail "no error line with '$pattern': $*"; }
  [ "$(grep -c '^error: ' stderr.log)" -eq 1 ] || fail "more than one error line: $*"
  [ -z "$(ls | grep -E '^no.gguf|tmp$')" ] || fail "a file is left: $*"
}
quantize() { "$wels" quantize "$@"; }
refuse 'the name is empty; name the file to write' quantize run -o ''
refuse 'type: unknown type "q4_z"; use .*q4_k' quantize run -o no.gguf --type q4_z
refuse 'tensor: "blk.99.\*" matches no tensor of this model; names are like' quantize run -o no.gguf --tensor 'blk.99.*=q8_0'
refuse 'tensor: "\*norm.weight" matches only tensors that stay f32' quantize run -o no.gguf --tensor '*norm.weight=q8_0'
refuse 'tensor: unknown type "x"' quantize run -o no.gguf --tensor '*=x'
refuse 'tensor: "output" is not PATTERN=TYPE' quantize run -o no.gguf --tensor output
refuse 'q4_0.gguf: is quantised already, mostly q4_0, .*quantise the original' quantize q4_0.gguf -o no.gguf --type q8_0
refuse 'f32.gguf: is the file that is read' quantize f32.gguf -o f32.gguf
refuse 'run: is a folder; give a file' quantize f32.gguf -o run
refuse 'missing/m.gguf: cannot create: No such file or directory; check the path' quantize run -o missing/m.gguf
refuse 'nowhere: does not exist' quantize nowhere -o no.gguf
refuse 'missing.txt: no such file or folder' quantize run -o no.gguf --calibration missing.txt
: > empty.txt
refuse 'empty.txt: holds no text' quantize run -o no.gguf --calibration empty.txt
head -c 300000 f32.gguf > short.gguf
refuse 'short.gguf: ' quantize short.gguf -o no.gguf
cp -r "$checkpoint" broken
head -c 100000 "$checkpoint/model.safetensors" > broken/model.safetensors
refuse 'broken/model.safetensors: .*truncated or damaged' quantize broken -o no.gguf
rm -r broken; cp -r "$checkpoint" broken
# The last four bytes become a NaN.
printf '\x00\x00\xc0\x7f' | dd of=broken/model.safetensors bs=1 seek=$(($(size broken/model.safetensors) - 4)) conv=notrunc status=none
refuse 'broken: tensor .*: value \[[0-9]+(, [0-9]+)*\] is not finite; the checkpoint is damaged' quantize broken -o no.gguf --mtp
rm "$checkpoint"/tokenizer.json 2>/dev/null && { refuse 'has no tokenizer, which --calibration needs' quantize "$checkpoint" -o no.gguf --calibration few.txt; cp run/tokenizer.json "$checkpoint"/; }

# --- Folders that cannot be written, a disk that is full: the old file stays.
mkdir -p readonly full
if mount -t tmpfs -o ro,size=1m none readonly 2>/dev/null; then
  mounted+=("$scratch/readonly")
  refuse 'readonly/m.gguf: cannot create: Read-only file system; choose a folder' quantize run -o readonly/m.gguf
elif [ "$(id -u)" -ne 0 ]; then
  chmod 555 readonly
  refuse 'readonly/m.gguf: cannot create: Permission denied; choose a folder' quantize run -o readonly/m.gguf
else
  echo "left out: a read-only folder, root without the right to mount"
fi
cp q8_0.gguf kept.gguf
limited() { (trap '' XFSZ; ulimit -f 500; quantize run -o kept.gguf --type f32); }
refuse 'kept.gguf: cannot write: File too large' limited
cmp -s q8_0.gguf kept.gguf || fail "a failed run changed the old file"
if mount -t tmpfs -o size=1m none full 2>/dev/null; then
  mounted+=("$scratch/full")
  refuse 'full/m.gguf: cannot write: No space left on device; free some space' quantize run -o full/m.gguf --type f32
  [ -z "$(ls full)" ] || fail "a part of the file stays on the full disk"
fi

# --- Ctrl-C leaves nothing, and no half file has the output's name after kill -9.
"$wels" pretrain text.txt --out wide --depth 8 --experts 64 --seq 64 --batch-tokens 128 --micro-batch 128 --vocab 400 --steps 1 \
  --sample-every 0 >/dev/null 2>log || { cat log; fail "training a larger model"; }
for signal in INT KILL; do
  rm -f slow.gguf*
  "$wels" quantize wide -o slow.gguf --type q2_k --threads 1 >stdout.log 2>stderr.log & pid=$!
  for _ in $(seq 6000); do writing $pid "$PWD/slow.gguf" && break; kill -0 $pid 2>/dev/null || break; sleep 0.01; done
  kill -$signal $pid 2>/dev/null || fail "over before the signal"
  code=0; wait $pid 2>/dev/null || code=$?
  [ ! -e slow.gguf ] || fail "half a file after SIG$signal"
  if [ $signal = INT ]; then
    [ "$code" -eq 130 ] && [ -z "$(ls | grep slow)" ] || fail "Ctrl-C: exit code $code, $(ls slow*)"
  fi
done
"$wels" quantize wide -o slow.gguf --type q8_0 >/dev/null 2>&1 || fail "after kill -9"

# --- Neighbours are left alone, and a pipe gets the file's bytes.
echo mine > slow.gguf.tmp
"$wels" quantize wide -o slow.gguf --type q8_0 >/dev/null 2>&1 && [ "$(cat slow.gguf.tmp)" = mine ] || fail "a neighbour is changed"
mkfifo pipe
cat pipe > piped.gguf &
"$wels" quantize wide -o pipe --type q8_0 >stdout.log 2>stderr.log || { cat stderr.log; fail "writing to a pipe"; }
wait $!
cmp slow.gguf piped.gguf || fail "a pipe got other bytes"
echo "quantize: all as expected"
