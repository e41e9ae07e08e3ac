#include "apps/commands.h"
#include "base/threads.h"

namespace wels {

void DeviceFlags::add(CLI::App* sub) {
  sub->add_option("--device", device,
                  "auto (cpu, or ref on a CPU without AVX2), cpu, cpu:avx2, cpu:avx512, "
                  "cpu:avx512_vnni, cpu:avx512_bf16, ref, ref:double")
      ->capture_default_str();
  sub->add_option("--threads", threads, "threads (0: all)")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
}

void DeviceFlags::apply() const {
  if (threads > 0) set_thread_count(threads);
}

}  // namespace wels
