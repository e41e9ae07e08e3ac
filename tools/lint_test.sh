#!/usr/bin/env bash
# Proves that every rule of tools/lint.sh fires on a tree that breaks it, and that a clean tree passes.
set -u
lint=$(cd "$(dirname "$0")" && pwd)/lint.sh
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
failures=0
checks=0

# put FILE TEXT...: a file of the tree, one line per TEXT.
put() {
  mkdir -p "$tree/$(dirname "$1")"
  local file=$1
  shift
  printf '%s\n' "$@" > "$tree/$file"
}
start() { rm -rf "${tree:?}"/*; put src/base/a.h '// nothing'; }
# passes NAME; fails NAME PATTERN: lint's exit status, and for fails a line of its output that matches.
passes() {
  checks=$((checks + 1))
  if ! output=$("$lint" "$tree/build" "$tree" 2>&1); then
    echo "FAIL: $1: should pass, said: $output"
    failures=$((failures + 1))
  fi
}
fails() {
  checks=$((checks + 1))
  if output=$("$lint" "$tree/build" "$tree" 2>&1) || ! grep -qE "$2" <<< "$output"; then
    echo "FAIL: $1: should fail with /$2/, said: $output"
    failures=$((failures + 1))
  fi
}
# include FILE PATH: a clean tree in which FILE includes PATH on line 2.
include() { start; put "$1" '// x' "#include \"$2\""; }

start; passes 'a clean tree'

# Layers: FROM INCLUDED allowed|refused
while read -r from path verdict; do
  include "src/$from/x.cc" "$path"
  if [ "$verdict" = ok ]; then passes "$from -> $path"; else fails "$from -> $path" "^src/$from/x.cc:2: .* may not include"; fi
done <<'TABLE'
base tensor/tensor.h no
tensor base/check.h ok
tensor formats/json.h no
formats tensor/tensor.h ok
formats text/tokenizer.h no
text formats/json.h ok
text tensor/tensor.h no
backend tensor/tensor.h ok
backend/cpu nn/tape.h no
backend/cpu backend/ref/ref_device.h ok
backend/cpu backend/device.h ok
backend/ref backend/cpu/cpu_device.h no
backend/cuda backend/cpu/cpu_device.h no
backend/cuda backend/ref/ref_device.h no
backend backend/cpu/cpu_device.h ok
nn backend/device.h ok
nn backend/cpu/cpu_device.h no
nn model/model.h no
model nn/tape.h ok
model text/tokenizer.h no
model data/corpus.h no
data text/tokenizer.h ok
tasks text/chat.h ok
tasks tensor/tensor.h no
engine model/model.h ok
engine text/tokenizer.h no
engine data/corpus.h no
engine train/trainer.h no
train data/corpus.h ok
train backend/device.h ok
train backend/ref/ref_device.h no
train engine/engine.h no
rl train/trainer.h ok
rl engine/engine.h ok
serve engine/engine.h ok
serve train/trainer.h no
agent engine/engine.h no
agent tasks/task.h ok
apps backend/cpu/cpu_device.h ok
TABLE
include src/nn/x_test.cc backend/ref/ref_device.h; passes 'a test may include anything'
include src/backend/x.h backend/cpu/cpu_device.h; fails 'a header of backend naming a device' 'x.h:2: a header of backend may not'
include src/model/x.h ../text/a.h; fails 'an include upwards' 'x.h:2: include .*: write it from src/'
include src/oddly/x.h base/a.h; fails 'a folder without a row' 'x.h:1: unknown folder oddly'

start; put src/nn/x.cc 'void f() {' '  CpuDevice d;' '}'; fails 'a concrete device outside apps' 'nn/x.cc:2: names a concrete device'
start; put src/nn/x.cc '// as CpuDevice does it' 'int MyRefDeviceList;'; passes 'a device in a comment or another name'
start; put src/nn/x_test.cc 'RefDevice<float> d;'; passes 'a device in a test'
start; put src/apps/x.cc 'CpuDevice d;'; passes 'a device in apps'

hundred=$(printf 'x%.0s' {1..100})
start; put src/nn/x.cc "$hundred"; passes 'a line of 100'
start; put src/nn/x.cc '' "${hundred}x"; fails 'a line of 101' 'x.cc:2: line of 101 characters'
start; put src/nn/x.inl "${hundred}x"; fails 'a line of 101 in .inl' 'x.inl:1: line of 101'
start; put src/nn/x.cc "${hundred:2}·×"; passes 'a line of 100 characters in more bytes'
start; put src/nn/x.cc "$(printf '\tint x;')"; fails 'a tab' 'x.cc:1: tab'
start; seq -f '// %.0f' 800 > "$tree/src/base/x.cc"; passes 'a file of 800 lines'
start; seq -f '// %.0f' 801 > "$tree/src/base/x.cc"; put src/base/y.cc '// short'; fails 'a file of 801 lines' 'x.cc:801: file of 801 lines'
# long_one LINES SIGNATURE...: a function of so many lines, its signature's included.
long_one() {
  local lines=$1
  shift
  start
  { printf '%s\n' "$@"; seq -f '  f(%.0f);' $((lines - $# - 1)); echo '}'; } > "$tree/src/base/x.cc"
}
split=('int long_one(int a,' '             int b) {')
long_one 117 'void long_one() {'; passes 'a function of 117 lines'
long_one 118 'void long_one() {'; fails 'a function of 118 lines' 'x.cc:1: function of 118 lines'
long_one 117 "${split[@]}"; passes 'a function of 117 lines, two of them its signature'
long_one 118 "${split[@]}"; fails 'a function of 118 lines with a signature of two' 'x.cc:1: function of 118 lines'
long_one 118 'X::X(int a)' '    : a_(a),' '      b_{1} {'; fails 'a constructor with members of 118 lines' 'x.cc:1: function of 118 lines'
long_one 118 'int f(int a,' '      int b);' 'struct X {'; passes 'a declaration before a long struct'

include src/backend/cpu/isa/x.cc backend/cpu/isa/kernels.h; passes 'an ISA file'
start; put src/backend/cpu/isa/x.cc '#include <algorithm>'; fails 'std in an ISA file' 'isa/x.cc:1: ISA files include'

# Objects. isa NAME CODE: compiles CODE to the place where the build has its ISA objects.
isa() {
  start
  mkdir -p "$tree/build/src/backend/cpu/isa"
  printf '%s\n' "$2" | ${CXX:-c++} -x c++ -std=c++20 -O0 -c - -o "$tree/build/src/backend/cpu/isa/$1.cc.o" || failures=$((failures + 1))
}
isa good 'namespace { int f() { return 1; } const int k = 2; } const void* kernels_x() { return f() ? &k : 0; }'
passes 'an object with one exported function'
isa two 'void f() {} void g() {}'; fails 'two exported functions' 'two.cc.o: 2 exported symbols'
isa none 'static int x; static int* f() { return &x; } namespace { auto p = f; }'; fails 'nothing exported' '0 exported symbols'
isa weak 'inline int g(int x) { return x; } int f() { return g(1); }'; fails 'an inline function' 'weak.cc.o: weak symbol: g\(int\)'
isa tmpl 'template <class T> T g(T x) { return x; } int f() { return g(1); }'; fails 'a template' 'weak symbol: int g<int>'
isa data 'inline int shared = 1; int* f() { return &shared; }'; fails 'an inline variable' 'weak symbol: shared'
start; mkdir -p "$tree/build"; touch "$tree/build/libwels_backend_cpu.a"; fails 'objects that are not where they should be' 'without objects'

echo "lint_test: $checks checks, $failures failed"
[ $failures -eq 0 ]
