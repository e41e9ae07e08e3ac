#include "backend/registry.h"

#include "backend/cpu/cpu_device.h"
#include "backend/ref/ref_device.h"
#include "base/error.h"
#include "base/log.h"

namespace wels {

namespace {

std::unique_ptr<Device> best_device() {
  try {
    return std::make_unique<CpuDevice>();
  } catch (const Error& e) {
    if (e.where() != "cpu") throw;  // WELS_ISA names another
    log_warn("{}: computing in plain loops (--device ref), which is slow", e.fact());
    return std::make_unique<RefDevice<float>>();
  }
}

}  // namespace

std::unique_ptr<Device> make_device(const std::string& name) {
  if (name == "auto") return best_device();
  if (name == "ref") return std::make_unique<RefDevice<float>>();
  if (name == "ref:double") return std::make_unique<RefDevice<double>>();
  if (name == "cpu") return std::make_unique<CpuDevice>();
  if (name.starts_with("cpu:")) return std::make_unique<CpuDevice>(name.substr(4));
  if (name.starts_with("cuda")) throw Error("--device", "this build has no CUDA device", "use cpu");
  throw Error("--device", "unknown device \"" + name + "\"",
              "use auto, cpu, cpu:avx2, cpu:avx512, cpu:avx512_vnni, cpu:avx512_bf16, ref or "
              "ref:double");
}

std::vector<std::string> test_devices() {
  std::vector<std::string> out{"ref"};
  for (const char* isa : {"cpu:avx2", "cpu:avx512", "cpu:avx512_vnni", "cpu:avx512_bf16"}) {
    try {
      make_device(isa);
      out.push_back(isa);
    } catch (const Error&) {  // this machine lacks it
    }
  }
  return out;
}

}  // namespace wels
