#include "backend/registry.h"

#include "backend/cpu/cpu_device.h"
#include "backend/ref/ref_device.h"
#include "base/error.h"

namespace wels {

std::unique_ptr<Device> make_device(const std::string& name) {
  if (name == "ref") return std::make_unique<RefDevice<float>>();
  if (name == "ref:double") return std::make_unique<RefDevice<double>>();
  if (name == "cpu") return std::make_unique<CpuDevice>();
  if (name.starts_with("cpu:")) return std::make_unique<CpuDevice>(name.substr(4));
  if (name.starts_with("cuda")) throw Error("--device", "this build has no CUDA device", "use cpu");
  throw Error("--device", "unknown device \"" + name + "\"",
              "use cpu, cpu:avx2, cpu:avx512, cpu:avx512_vnni, cpu:avx512_bf16, ref or ref:double");
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
