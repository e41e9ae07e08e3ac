#!/usr/bin/env bash
# What make install and cpack give: the program, its manual page, completions, a service; the engine as a library, whose headers
# compile and which an example links; Debian packages that unpack to a program that runs.
here=$(cd "$(dirname "$0")/../.." && pwd)
. "$(dirname "$0")/common.sh"
build=$(dirname "$wels")
cd "$scratch"

# --- Completions know commands and flags.
source "$build/generated/wels.bash"
completes() { # WORD... = WANTED: the last word, completed
  COMP_WORDS=("${@:1:$#-1}"); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); COMPREPLY=()
  _wels || true
  printf '%s\n' "${COMPREPLY[@]}" | grep -qxF -- "${*: -1}" || fail "completing '${COMP_WORDS[*]}': ${COMPREPLY[*]}"
}
completes wels ser serve
completes wels bench inf infer
completes wels bench infer --str --streams
completes wels serve model --por --port
if command -v fish >/dev/null; then fish -n "$build/generated/wels.fish" || fail "wels.fish"; fi
if command -v zsh >/dev/null; then zsh -n "$build/generated/_wels" || fail "_wels"; fi
grep -qF '.SH WELS SERVE' "$build/generated/wels.1" || fail "no manual page"
if command -v groff >/dev/null; then
  groff -man -Tutf8 -ww "$build/generated/wels.1" 2>&1 >/dev/null | head -3 | tee warnings
  [ ! -s warnings ] || fail "the manual page"
fi

# --- Installed.
cmake --install "$build" --prefix "$scratch/usr" >log || { cat log; fail "cmake --install"; }
[ "$(usr/bin/wels --version)" = "$("$wels" --version)" ] || fail "the installed program"
for f in share/man/man1/wels.1 share/bash-completion/completions/wels lib/systemd/system/wels.service include/wels/wels.h; do
  [ -s "usr/$f" ] || fail "no $f"
done
if command -v systemd-analyze >/dev/null; then
  systemd-analyze verify --man=no "$scratch/usr/lib/systemd/system/wels.service" >log 2>&1 || { cat log; fail "the systemd unit"; }
fi

# --- The installed headers compile, with what the package asks for: nothing is said of C++20 here.
cmake -E make_directory headers
cat >headers/CMakeLists.txt <<'CMAKE'
cmake_minimum_required(VERSION 3.25)
project(headers LANGUAGES CXX)
find_package(wels REQUIRED)
add_library(headers OBJECT all.cc)
target_link_libraries(headers wels::wels)
CMAKE
(cd usr/include/wels && find . -name '*.h' | LC_ALL=C sort | sed 's|^./\(.*\)|#include "\1"|') >headers/all.cc
[ "$(wc -l <headers/all.cc)" -gt 50 ] || fail "few headers"
cmake -S headers -B headers/build -DCMAKE_PREFIX_PATH="$scratch/usr" >log 2>&1 && cmake --build headers/build >log 2>&1 ||
  { tail -30 log; fail "the installed headers"; }
[ -e usr/lib/*/libwels.so ] || [ -e usr/lib/libwels.so ] || fail "no libwels.so"

# --- The example, with the installed library: the same answer as wels chat.
seq 1 3000 | sed 's/$/ cats sat on the mat./' > text.txt
"$wels" pretrain text.txt --out run --preset nano --seq 64 --batch-tokens 512 --micro-batch 512 --vocab 400 --steps 3 \
  --sample-every 0 >log 2>&1 || { cat log; fail "training"; }
cmake -S "$here/examples/engine" -B example -DCMAKE_PREFIX_PATH="$scratch/usr" >log 2>&1 || { cat log; fail "find_package(wels)"; }
cmake --build example >log 2>&1 || { cat log; fail "the example does not build"; }
example/ask run 'one "cat"' >asked || fail "the example"
"$wels" chat run 'one "cat"' --temperature 0 -n 256 2>/dev/null >told
cmp asked told || { cat asked told; fail "the example answers otherwise"; }
code=0; example/ask nowhere question 2>err || code=$?
[ $code -eq 2 ] && grep -q '^error: nowhere' err || { cat err; fail "the example has no error"; }

# --- Debian packages.
if command -v cpack >/dev/null && command -v dpkg-shlibdeps >/dev/null && command -v file >/dev/null; then
  (cd "$build" && cpack -G DEB -B "$scratch/deb") >log 2>&1 || { cat log; fail "cpack"; }
  for p in deb/wels_*.deb deb/wels-dev_*.deb; do dpkg-deb -x "$p" root || fail "$p"; done
  dpkg-deb -f deb/wels_*.deb Depends | grep -q libc6 || fail "the package has no dependencies"
  [ "$(root/usr/bin/wels --version)" = "$("$wels" --version)" ] || fail "the packaged program"
  [ -s root/usr/include/wels/wels.h ] && [ -s root/usr/share/doc/wels/LICENSE ] || fail "files of the packages"
  grep -q '^ExecStart=/usr/bin/wels ' root/usr/lib/systemd/system/wels.service || fail "the packaged unit"
else
  echo "left out: Debian packages, no dpkg-shlibdeps or file"
fi
echo "package: all as expected"
