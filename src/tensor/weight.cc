#include "tensor/weight.h"

namespace wels {

std::string tensor_name(const std::string& name, int64_t e) {
  size_t at = name.find("{}");
  return at == std::string::npos ? name : std::string(name).replace(at, 2, std::to_string(e));
}

}  // namespace wels
