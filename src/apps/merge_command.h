// `wels merge` as a function, for commands of which it is a part.
#pragma once
#include <string>

namespace wels {

struct MergeFlags {
  std::string adapters, base = "", out, type = "bf16";
};

// Joins the adapters with their model (base; empty: the one that they name) into the new folder
// `out`, which appears whole or not at all. Throws Error.
void merge_job(const MergeFlags& f);

}  // namespace wels
