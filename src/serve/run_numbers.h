// The numbers of a run in the form that the training page asks for them: what is new since it asked
// last, a long file thinned out. A place in metrics.jsonl is an offset and a checksum of the bytes
// before it, so that a file that is no longer the same (the run was resumed or begun anew) is seen.
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "serve/http.h"

namespace wels {

struct RunNumbers {
  std::string next;    // the place behind the lines, for the next question
  bool reset = false;  // `after` is a place of another file: all lines come
  std::shared_ptr<BodySource> body;
};

// The whole lines of the file at `path` behind the place `after` (empty: all). More than 1 MiB of
// them are thinned out to at most about `points` lines (train/run_curves.h). Nothing: `after` is no
// place. A file that isn't there is an empty one.
std::optional<RunNumbers> run_numbers(const std::string& path, std::string_view after,
                                      size_t points);

}  // namespace wels
