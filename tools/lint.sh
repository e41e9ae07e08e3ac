#!/usr/bin/env bash
# Lint of what a compiler does not see: who may include whom, who names a concrete device, ISA objects without weak symbols,
# sizes of files and lines.   tools/lint.sh [BUILD_DIR [SOURCE_DIR]]
# Prints file:line: reason and exits with 1 if anything is wrong. Without BUILD_DIR the objects are not looked at.
set -u
build=${1:-}
src=${2:-$(cd "$(dirname "$0")/.." && pwd)}
cd "$src" || exit 2
export LC_ALL=C
failed=0

# Layers: a folder and what its files may include besides their own folder. backend/device.h, backend/registry.h,
# formats/json.h and train/run_curves.h are single files; every other entry is a folder. Tests, fuzzers, apps, capi, tests/ and bench/ may include anything.
layers='
base
tensor    base
formats   tensor base
text      formats base
backend   tensor base
nn        backend/device.h tensor base
model     nn formats tensor base
data      nn formats text tensor base
tasks     text formats/json.h base
engine    model nn backend/device.h formats tensor base
train     model nn data backend/device.h text formats tensor base
parallel  model nn data backend/device.h text formats tensor base
rl        engine train parallel tasks model nn data backend/device.h text formats tensor base
distill   rl engine train parallel tasks model nn data backend/device.h text formats tensor base
serve     engine train/run_curves.h tasks model nn data backend/device.h text formats tensor base
agent     train parallel tasks model nn data backend/device.h text formats tensor base
'

mapfile -t files < <(find src tests bench -name node_modules -prune -o -type f \( -name '*.cc' -o -name '*.h' -o -name '*.inl' \) -print 2>/dev/null | sort)
if [ ${#files[@]} -gt 0 ]; then
  awk -v layers="$layers" '
    function report(why) { printf "%s:%d: %s\n", FILENAME, FNR, why; bad = 1 }
    BEGIN {
      longest = 117  # lines of a function
      n = split(layers, row, "\n")
      for (i = 1; i <= n; i++) {
        m = split(row[i], word, " ")
        if (m == 0) continue
        known[word[1]] = 1
        for (j = 2; j <= m; j++) may[word[1], word[j]] = 1
      }
    }
    FNR == 1 {
      close_file()
      previous = FILENAME
      parts = split(FILENAME, part, "/")
      in_src = part[1] == "src"
      folder = part[2]
      device = in_src && folder == "backend" && parts > 3 ? part[3] : ""   # ref, cpu, cuda
      isa = FILENAME ~ /^src\/backend\/cpu\/isa\//
      # Whoever tests a folder may use everything.
      free = !in_src || folder == "apps" || folder == "capi" || FILENAME ~ /_(test|fuzz)\.(cc|h)$/
      if (in_src && folder != "apps" && folder != "capi" && parts > 2 && !(folder in known)) report("unknown folder " folder)
      in_function = signature = 0
    }
    {
      lines = FNR
      text = $0
      gsub(/[\200-\277]/, "", text)  # count characters, not bytes
      # Tests may quote data: up to 120.
      most = FILENAME ~ /_test\.cc$/ ? 120 : 100
      if (length(text) > most) report("line of " length(text) " characters, at most " most)
      if (index($0, "\t")) report("tab")
    }
    /^[ ]*#[ ]*include[ ]*"/ {
      split($0, quoted, "\"")
      path = quoted[2]
      slashes = split(path, to, "/")
      if (path ~ /\.\./) report("include \"" path "\": write it from src/")
      else if (slashes > 1 && !free) check_include()
    }
    # Code compiled for one instruction set must not instantiate std templates: the linker might keep that copy for all.
    isa && !free && /^[ ]*#[ ]*include[ ]*</ && !/<(immintrin\.h|arm_neon\.h|cstdint)>/ {
      report("ISA files include <immintrin.h>, <cstdint> and .inl only")
    }
    !free && !(folder == "backend") && /(Cpu|Ref|Cuda)Device/ {
      code = $0
      sub(/\/\/.*/, "", code)
      if (code ~ /(^|[^A-Za-z0-9_])(Cpu|Ref|Cuda)Device([^A-Za-z0-9_]|$)/)
        report("names a concrete device; take a Device&")
    }
    # A rough count: functions at the left margin, as clang-format leaves them in a namespace, from the first line of their
    # signature. `longest` is what the longest there is has; new ones should have about 60.
    /^[A-Za-z_].*\(/ && !/^(namespace|struct|class|union|enum|extern|using)/ && !/=[^()]*\{$/ { signature = FNR }
    /^[A-Za-z_}]/ && !/\(/ { signature = 0 }
    signature && /\{$/ {
      if (!in_function) in_function = signature
      signature = 0
    }
    signature && /[;}]$/ { signature = 0 }
    /^\}/ {
      if (in_function && FNR - in_function + 1 > longest) {
        printf "%s:%d: function of %d lines, at most %d\n", FILENAME, in_function, FNR - in_function + 1, longest
        bad = 1
      }
      in_function = 0
    }
    function check_include() {
      if (to[1] == folder && folder != "backend") return
      if (folder == "backend" && to[1] == "backend") {
        other = slashes > 2 ? to[2] : ""
        # The registry (files of backend/ itself) knows all devices; device.h and other headers know none.
        if (device == "" && (other == "" || FILENAME ~ /\.cc$/)) return
        if (device != "" && (other == "" || other == device || (device == "cpu" && other == "ref"))) return
        report((device == "" ? "a header of backend" : "backend/" device) " may not include \"" path "\"")
        return
      }
      if ((folder, to[1]) in may || (folder, path) in may) return
      report(folder " may not include \"" path "\"")
    }
    function close_file() {
      if (previous != "" && lines > 800) {
        printf "%s:%d: file of %d lines, at most 800\n", previous, lines, lines
        bad = 1
      }
    }
    END { close_file(); exit bad }
  ' "${files[@]}" || failed=1
fi

# ISA objects: one exported symbol, nothing weak or unique (V: a shared constant, W: a template or inline function, u: GNU unique).
if [ -n "$build" ]; then
  mapfile -t objects < <(find "$build" -type f -path '*backend/cpu/isa/*.cc.o' 2>/dev/null | sort)
  if [ ${#objects[@]} -eq 0 ] && find "$build" -name 'libwels_backend_cpu.a' 2>/dev/null | grep -q .; then
    echo "$build: libwels_backend_cpu.a without objects of backend/cpu/isa"
    failed=1
  fi
  for object in "${objects[@]}"; do
    nm -C --defined-only "$object" | awk -v object="$object" '
      $2 ~ /^[WwVvu]$/ { printf "%s: weak symbol: %s\n", object, substr($0, index($0, $3)); bad = 1 }
      $2 ~ /^[TDBRGSC]$/ { exported++; names = names "\n    " substr($0, index($0, $3)) }
      END {
        if (exported != 1) { printf "%s: %d exported symbols, 1 allowed:%s\n", object, exported, names; bad = 1 }
        exit bad
      }' || failed=1
  done
fi

[ $failed -eq 0 ] && echo "lint: ${#files[@]} source files, nothing wrong"
exit $failed
