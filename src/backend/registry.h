// Devices by name: the one place beside apps/ that knows which there are.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "backend/device.h"

namespace wels {

// "cpu" (best instruction set), "cpu:avx2", "cpu:avx512", "cpu:avx512_bf16", "ref" (float),
// "ref:double"; "auto": cpu, and where this machine has none of its instruction sets ref, with a
// note on stderr. Throws Error for others, and for instruction sets this machine lacks.
std::unique_ptr<Device> make_device(const std::string& name);

// Every device this machine can run except ref:double, the oracle the others are tested against.
std::vector<std::string> test_devices();

}  // namespace wels
